"""The known-answer probe: a model that gives a wrong answer is not served, because that is worse than none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trtd.core.faults import Fault, FaultKind, ProcessFault
from trtd.errors import InvalidConfig, OutOfMemory, TrtdError
from trtd.runtime.protocol import Arrays, Slot
from trtd.wire.messages import TensorContract, TensorSpec
from trtd.wire.settings import ProbeSettings
from trtd.worker.material import INPUT_PREFIX, OUTPUT_PREFIX, as_request, read_arrays
from trtd.worker.numbers import widen
from trtd.worker.validate import ServedModel, show_shape


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """Inputs, and the outputs that they must give; a file may name fewer outputs than the model has."""

    inputs: Arrays
    outputs: dict[str, np.ndarray]


def probe(served: ServedModel, slot: Slot, known: KnownAnswer, settings: ProbeSettings) -> None:
    """Ask the question and compare the answer: |got - expected| <= absolute + relative * |expected|, NaN equals NaN.

    Raises:
        trtd.core.faults.ProcessFault: PROBE_FAILED, where the answer is wrong or none; permanent, since the same file
            gives the same answer again. Also what the run raises itself.
        trtd.errors.OutOfMemory: memory did not suffice for the question.
    """
    try:
        (answer,) = slot.run([known.inputs])
    except OutOfMemory:
        # It says nothing about the model: there may be room the next time.
        raise
    except TrtdError as error:
        raise failed(served, f"no answer: {error.message}") from error
    problem = _problem(served, answer, known, settings)
    if problem:
        raise failed(served, problem)


def probe_joined(served: ServedModel, slot: Slot, known: KnownAnswer, settings: ProbeSettings) -> str | None:
    """Ask the question several times in one batch: 2, 3, 4, 8 and so on, and as often as a batch holds.

    Returns:
        What is wrong, in words; None where each answer is right.

    Raises:
        trtd.errors.OutOfMemory: memory did not suffice.
        trtd.core.faults.ProcessFault: what the run raises itself.
    """
    request = known.inputs
    items = {len(array) for array in request.values()}
    if len(items) != 1 or not min(items) or len(request) > len(served.description.inputs):
        return None
    specs = tuple(TensorSpec(one.name, one.dtype, request[one.name].shape) for one in served.description.inputs)
    most = served.plan(specs).limits.max_items // items.pop()
    for count in sizes(most):
        try:
            answers = slot.run([request] * count)
        except OutOfMemory:
            raise
        except TrtdError as error:
            return f"no answer in a batch of {count} requests: {error.message}"
        for answer in answers:
            problem = _problem(served, answer, known, settings)
            if problem:
                return f"in a batch of {count} requests: {problem}"
    return None


def sizes(most: int) -> list[int]:
    """2, 3, the powers of two, and the most; each once, and none larger."""
    powers = [1 << power for power in range(1, most.bit_length())]
    return sorted({size for size in (*powers, 3, most) if 1 < size <= most})


def _problem(served: ServedModel, answer: Arrays, known: KnownAnswer, settings: ProbeSettings) -> str | None:
    contracts = {contract.name: contract for contract in served.description.outputs}
    for name, expected in known.outputs.items():
        problem = difference(contracts[name], answer[name], expected, settings)
        if problem:
            return f"output {name!r}: {problem}"
    return None


def difference(contract: TensorContract, got: np.ndarray, expected: np.ndarray, settings: ProbeSettings) -> str | None:
    """What is wrong with an output, in words; None when it is right."""
    if got.shape != expected.shape:
        return f"got shape {show_shape(got.shape)}, expected {show_shape(expected.shape)}"
    if got.dtype != expected.dtype:
        return f"got {got.dtype}, expected {expected.dtype}"
    wide_got, wide_expected = widen(contract.dtype, got), widen(contract.dtype, expected)
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
    arrays = read_arrays(where, path)
    inputs = {key for key in arrays if key.startswith(INPUT_PREFIX)}
    outputs = {key.removeprefix(OUTPUT_PREFIX): one for key, one in arrays.items() if key.startswith(OUTPUT_PREFIX)}
    known_outputs = {contract.name for contract in served.description.outputs}
    if len(inputs) + len(outputs) != len(arrays) or not outputs or not outputs.keys() <= known_outputs:
        raise InvalidConfig(
            f"{where}: wanted arrays in.NAME for each input and out.NAME for some of the outputs "
            f"{', '.join(sorted(known_outputs))}; got {', '.join(sorted(arrays)) or 'none'}"
        )
    return KnownAnswer(as_request(served, where, arrays), outputs)


def failed(served: ServedModel, text: str) -> ProcessFault:
    """The fault of a model that has no right answer."""
    return ProcessFault(Fault(FaultKind.PROBE_FAILED, f"model {served}: known answer: {text}", permanent=True))
