"""The known-answer probe: a model that gives a wrong answer is not served, because that is worse than none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trtd.core.faults import Fault, FaultKind, ProcessFault
from trtd.errors import InvalidConfig, OutOfMemory, TrtdError
from trtd.runtime.protocol import Slot
from trtd.wire.messages import Dtype, TensorContract, TensorSpec
from trtd.wire.settings import ProbeSettings
from trtd.wire.tensors import Bits, to_dtype, to_frame, to_numpy, wrap
from trtd.worker.validate import ServedModel, show_shape

INPUT_PREFIX = "in."
OUTPUT_PREFIX = "out."


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """Inputs, and the outputs that they must give; a file may name fewer outputs than the model has."""

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def probe(served: ServedModel, slot: Slot, settings: ProbeSettings) -> None:
    """Ask the question and compare the answer: |got - expected| <= absolute + relative * |expected|, NaN equals NaN.

    Raises:
        trtd.core.faults.ProcessFault: PROBE_FAILED, where the answer is wrong or none; permanent, since the same file
            gives the same answer again. Also what the run raises itself.
        trtd.errors.InvalidConfig: the file with the known answer cannot be used.
        trtd.errors.OutOfMemory: memory did not suffice for the question.
    """
    known = read_known_answer(served, settings.path)
    try:
        (answer,) = slot.run([known.inputs])
    except OutOfMemory:
        # It says nothing about the model: there may be room the next time.
        raise
    except TrtdError as error:
        raise _failed(served, f"no answer: {error.message}") from error
    contracts = {contract.name: contract for contract in served.description.outputs}
    for name, expected in known.outputs.items():
        problem = difference(contracts[name], answer[name], expected, settings)
        if problem:
            raise _failed(served, f"output {name!r}: {problem}")


def difference(contract: TensorContract, got: np.ndarray, expected: np.ndarray, settings: ProbeSettings) -> str | None:
    """What is wrong with an output, in words; None when it is right."""
    if got.shape != expected.shape:
        return f"got shape {show_shape(got.shape)}, expected {show_shape(expected.shape)}"
    if got.dtype != expected.dtype:
        return f"got {got.dtype}, expected {expected.dtype}"
    wide_got, wide_expected = _widen(contract, got), _widen(contract, expected)
    close = np.isclose(wide_got, wide_expected, rtol=settings.relative, atol=settings.absolute, equal_nan=True)
    wrong = int(close.size - np.count_nonzero(close))
    if not wrong:
        return None
    where = np.unravel_index(int(np.argmin(close)), close.shape)
    at = ", ".join(str(int(index)) for index in where)
    values = f"got {wide_got[where]}, expected {wide_expected[where]}"
    return f"{wrong} of {close.size} values differ, first at [{at}]: {values}"


def read_known_answer(served: ServedModel, path: str) -> KnownAnswer:
    """Read the .npz file and compare it with the model.

    Raises:
        trtd.errors.InvalidConfig: it cannot be read, or is not a question to this model.
    """
    where = f"model {served}: probe {path}"
    arrays: dict[str, np.ndarray] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                arrays[key] = file[key]
    except OSError as error:
        raise InvalidConfig(f"{where}: {error.strerror or error}") from error
    except Exception as error:  # whatever numpy raises for a file, it is the file that cannot be used
        raise InvalidConfig(f"{where}: not an .npz file of plain arrays: {error}") from error
    inputs = {key.removeprefix(INPUT_PREFIX): one for key, one in arrays.items() if key.startswith(INPUT_PREFIX)}
    outputs = {key.removeprefix(OUTPUT_PREFIX): one for key, one in arrays.items() if key.startswith(OUTPUT_PREFIX)}
    known_outputs = {contract.name for contract in served.description.outputs}
    if len(inputs) + len(outputs) != len(arrays) or not outputs or not outputs.keys() <= known_outputs:
        raise InvalidConfig(
            f"{where}: wanted arrays in.NAME for each input and out.NAME for some of the outputs "
            f"{', '.join(sorted(known_outputs))}; got {', '.join(sorted(arrays)) or 'none'}"
        )
    dtypes = {contract.name: contract.dtype for contract in served.description.inputs}
    try:
        # By the same way as a client's request, so that whatever a client is refused is refused here.
        specs = tuple(TensorSpec(name, _dtype_of(one, dtypes.get(name)), one.shape) for name, one in inputs.items())
        question = served.plan(specs).read([to_frame(one) for one in inputs.values()]).arrays
    except TrtdError as error:
        raise InvalidConfig(f"{where}: {error.message}") from error
    return KnownAnswer(question, outputs)


def _dtype_of(array: np.ndarray, wanted: Dtype | None) -> Dtype:
    # An .npz file has no bfloat16 and no float8: their bits stand in arrays of uint16 and uint8.
    if wanted is not None and array.dtype == to_numpy(wanted):
        return wanted
    return to_dtype(array.dtype)


def _widen(contract: TensorContract, array: np.ndarray) -> np.ndarray:
    """Numbers whose differences do not overflow."""
    tensor = wrap(contract.dtype, array)
    if isinstance(tensor, Bits):
        return tensor.to_float32()
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _failed(served: ServedModel, text: str) -> ProcessFault:
    return ProcessFault(Fault(FaultKind.PROBE_FAILED, f"model {served}: known answer: {text}", permanent=True))
