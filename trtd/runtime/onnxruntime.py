"""ONNX Runtime: what a model takes is read from the model, one session serves all slots.

`InferenceSession.run` is thread-safe and releases the interpreter, so slots need nothing of their own. How a
session is opened is in `trtd.runtime.onnx_session`.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trtd.core.onnx_files import Unreadable, shaped_names
from trtd.errors import InvalidConfig, Usage
from trtd.runtime.areas import places
from trtd.runtime.candidates import objection
from trtd.runtime.gather import cut, join
from trtd.runtime.inputs import wanted
from trtd.runtime.onnx_inner import Places, inner_binding, inner_run
from trtd.runtime.onnx_session import Sessions, refusal
from trtd.runtime.ort import ort
from trtd.runtime.protocol import Arrays, RuntimeInfo, Shapes
from trtd.wire.messages import ITEM_BYTES, Dtype, ModelDescription, TensorContract, Unserved
from trtd.wire.onnxruntime import OnnxRuntimeSettings
from trtd.wire.settings import ModelSettings
from trtd.wire.tensors import to_numpy

DTYPES: dict[str, Dtype] = {
    "tensor(bool)": Dtype.BOOL,
    "tensor(int8)": Dtype.INT8,
    "tensor(int16)": Dtype.INT16,
    "tensor(int32)": Dtype.INT32,
    "tensor(int64)": Dtype.INT64,
    "tensor(uint8)": Dtype.UINT8,
    "tensor(uint16)": Dtype.UINT16,
    "tensor(uint32)": Dtype.UINT32,
    "tensor(uint64)": Dtype.UINT64,
    "tensor(float16)": Dtype.FLOAT16,
    "tensor(bfloat16)": Dtype.BFLOAT16,
    "tensor(float8e4m3fn)": Dtype.FLOAT8_E4M3FN,
    "tensor(float8e4m3fnuz)": Dtype.FLOAT8_E4M3FNUZ,
    "tensor(float8e5m2)": Dtype.FLOAT8_E5M2,
    "tensor(float8e5m2fnuz)": Dtype.FLOAT8_E5M2FNUZ,
    "tensor(float8e8m0)": Dtype.FLOAT8_E8M0FNU,
    "tensor(float)": Dtype.FLOAT32,
    "tensor(double)": Dtype.FLOAT64,
    "tensor(complex64)": Dtype.COMPLEX64,
    "tensor(complex128)": Dtype.COMPLEX128,
}

BITS: dict[Dtype, int] = {
    Dtype.BFLOAT16: 16,
    Dtype.FLOAT8_E4M3FN: 17,
    Dtype.FLOAT8_E4M3FNUZ: 18,
    Dtype.FLOAT8_E5M2: 19,
    Dtype.FLOAT8_E5M2FNUZ: 20,
    Dtype.FLOAT8_E8M0FNU: 24,
}
"""Dtypes that pass the binding as their bits, and their numbers in onnx.proto (TensorProto.DataType)."""

WARM_UP_DIM = 16
"""Size of free dimensions other than the first in warm-up inputs: a guess, as the model does not say what it takes."""
WARM_UP_BYTES = 64 * 1024 * 1024
"""Most bytes of the inputs of one warm-up run; a larger `max_batch` is warmed up with as many items as fit."""

MAX_KNOWN_SHAPES = 256
"""Most shapes of inputs for which a slot remembers those of the outputs."""


class OnnxRuntime:
    """Loads `.onnx` files and runs them, on the CPU where nobody says otherwise."""

    def __init__(self, threads: int, settings: OnnxRuntimeSettings) -> None:
        """Take the settings.

        Raises:
            trtd.errors.InvalidConfig: as `trtd.runtime.onnx_session.Sessions`.
        """
        self._sessions = Sessions(threads, settings)

    @property
    def info(self) -> RuntimeInfo:
        """Name and version."""
        return RuntimeInfo("onnxruntime", ort.__version__)

    def load(self, settings: ModelSettings) -> OnnxModel:
        """Load a model; see `trtd.runtime.protocol.Runtime.load`."""
        session = self._sessions.open(settings)
        return OnnxModel(session, describe(session, settings), self._sessions.run_options)

    def device_memory(self) -> None:
        """There is no device."""

    def pin(self, memory: np.ndarray) -> None:
        """Copies on the CPU need no pinning."""

    def unpin(self, memory: np.ndarray, then: Callable[[], None]) -> None:  # noqa: ARG002
        """The opposite of `pin`."""
        then()

    def make_fault(self, fault: str) -> None:
        """There is no device to make it on; see `trtd.runtime.protocol.Runtime.make_fault`."""
        raise Usage(f"this runtime has no device to make {fault!r} on")

    def close(self) -> None:
        """Nothing is held beside the models."""


class OnnxModel:
    """A loaded model: one session for all slots."""

    def __init__(
        self,
        session: ort.InferenceSession,
        description: ModelDescription,
        run_options: ort.RunOptions | None = None,
    ) -> None:
        self._session = session
        self._description = description
        self._run_options = run_options

    @property
    def description(self) -> ModelDescription:
        """What the session says of its inputs and outputs."""
        return self._description

    @property
    def copies_inputs(self) -> bool:
        """No: operators read the inputs where they lie, and may check an index and read it again."""
        return False

    def most_items(self, shapes: Shapes) -> None:
        """Any number: memory alone bounds it."""

    @property
    def shares_warmth(self) -> bool:
        """Yes: it belongs to the session."""
        return True

    def never_join(self) -> None:
        """Nothing is ever added to a request."""

    def open_slot(self) -> PlainSlot | BitsSlot:
        """A slot; the one for what NumPy lacks is apart, because that takes a longer way through the binding."""
        one = self._description
        tensors = one.inputs + one.optional_inputs + one.outputs
        kind = BitsSlot if any(tensor.dtype in BITS for tensor in tensors) else PlainSlot
        return kind(self._session, self._description, self._run_options)

    def warm_up_inputs(self, like: Arrays | None = None) -> Sequence[Arrays]:
        """A batch of 1 and of `max_batch` items: the arena then has the size that it needs.

        Without a request to follow, ones (rather than zeros, because integers may divide), and `WARM_UP_DIM` for each
        free dimension.
        """
        inputs = self._description.inputs
        samples = like or {one.name: np.ones((), to_numpy(one.dtype)) for one in inputs}

        def shape(contract: TensorContract, batch: int) -> tuple[int, ...]:
            return warm_up_shape(contract, batch, None if like is None else like[contract.name].shape)

        batches = [1]
        if self._description.is_batched:
            item_bytes = sum(ITEM_BYTES[one.dtype] * math.prod(shape(one, 1)) for one in inputs)
            batches.append(max(1, min(self._description.max_batch, WARM_UP_BYTES // max(1, item_bytes))))
        return [
            {one.name: np.resize(samples[one.name], shape(one, batch)) for one in inputs}
            for batch in dict.fromkeys(batches)
        ]


def warm_up_shape(contract: TensorContract, batch: int, like: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """A shape that the contract allows, with the free dimensions of another one where there is one."""
    if contract.shape is None:
        return like or (batch,)
    guesses = like or (WARM_UP_DIM,) * len(contract.shape)
    sizes = [guess if size is None else size for guess, size in zip(guesses, contract.shape, strict=True)]
    if contract.shape and contract.shape[0] is None:
        sizes[0] = batch
    return tuple(sizes)


class KnownOutput(NamedTuple):
    """What came of inputs of certain shapes."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size_bytes: int


class PlainSlot:
    """Runs batches of dtypes that NumPy has."""

    def __init__(
        self,
        session: ort.InferenceSession,
        description: ModelDescription,
        run_options: ort.RunOptions | None = None,
    ) -> None:
        self._session = session
        self._run_options = run_options
        self._run = inner_run(session)
        self._binding = inner_binding(session, run_options)
        self._outputs = tuple(output.name for output in description.outputs)
        self._dtypes = {output.name: to_numpy(output.dtype) for output in description.outputs}
        self._inputs_count = len(description.inputs)
        self._known: dict[Hashable, list[KnownOutput]] = {}
        """By the wanted outputs and the inputs' shapes the outputs, as they were; empty where their shapes vary."""

    def settle(self, request: Arrays) -> None:
        """Each run is as the first one."""
        self.run([request])

    def run(self, requests: Sequence[Arrays]) -> Sequence[Arrays]:
        """Run one batch; see `trtd.runtime.protocol.Slot.run`. The outputs are new arrays each time."""
        outputs = wanted(requests[0], self._outputs)
        try:
            arrays = self._run(outputs, join(requests), self._run_options)
        except MemoryError:
            raise
        except Exception as error:
            raise refusal(error) from error
        return cut(dict(zip(outputs, arrays, strict=True)), requests)

    def run_into(self, request: Arrays, area: np.ndarray, address: int) -> Arrays:
        """Run one request; see `trtd.runtime.protocol.PlacingSlot.run_into`.

        Floats alone are written there: the runtime may read an output again as the input of another operator, where
        a whole number that somebody changed in between could lead out of a buffer.
        """
        inputs = join([request])
        names = wanted(request, self._outputs)
        # Names of inputs only where some may be missing.
        given = None if len(inputs) == self._inputs_count else tuple(inputs)
        key = (names, given, tuple([array.shape for array in inputs.values()]))
        known = self._known.get(key)
        if known is None:
            outputs = self.run([request])[0]
            if len(self._known) >= MAX_KNOWN_SHAPES:
                self._known.clear()
            self._known[key] = [
                KnownOutput(name, outputs[name].shape, dtype, math.prod(outputs[name].shape) * dtype.itemsize)
                for name, dtype in zip(names, map(self._dtypes.__getitem__, names), strict=True)
            ]
            return outputs
        places_of = {
            one.name: (np.ndarray(one.shape, one.dtype, area, at), address + at)
            for one, at in zip(known, places([one.size_bytes for one in known], area.nbytes), strict=True)
            if at is not None and one.dtype.kind in "fc"
        }
        if not places_of:
            return self.run([request])[0]
        try:
            return self._run_bound(inputs, names, places_of)
        except MemoryError:
            raise
        except Exception:
            outputs = self.run([request])[0]
            # It is not the request that is wrong: the shapes of its outputs depend on its values.
            self._known[key] = []
            return outputs

    def _run_bound(self, inputs: Arrays, names: Sequence[str], places_of: Places) -> Arrays:
        """Run with outputs that go to their places; those that have none are made by the runtime."""
        # The binding that is kept knows what was bound before, so that it is for runs that bind the same names.
        is_usual = len(inputs) == self._inputs_count and len(places_of) == len(self._outputs)
        if self._binding is not None and is_usual:
            self._binding.run(inputs, places_of)
            return {name: target for name, (target, _) in places_of.items()}
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name in names:
            if name in places_of:
                target, address = places_of[name]
                binding.bind_output(name, "cpu", 0, target.dtype.type, target.shape, address)
            else:
                binding.bind_output(name)
        self._session.run_with_iobinding(binding, self._run_options)
        pairs = zip(names, binding.get_outputs(), strict=True)
        return {name: places_of[name][0] if name in places_of else value.numpy() for name, value in pairs}


class BitsSlot:
    """Runs batches with dtypes that NumPy lacks: they pass the binding as their bits, wrapped in typed values."""

    def __init__(
        self,
        session: ort.InferenceSession,
        description: ModelDescription,
        run_options: ort.RunOptions | None = None,
    ) -> None:
        self._session = session
        self._run_options = run_options
        inputs = description.inputs + description.optional_inputs
        self._bits = {tensor.name: BITS[tensor.dtype] for tensor in inputs if tensor.dtype in BITS}
        self._outputs = tuple(output.name for output in description.outputs)

    def settle(self, request: Arrays) -> None:
        """Each run is as the first one."""
        self.run([request])

    def run(self, requests: Sequence[Arrays]) -> Sequence[Arrays]:
        """Run one batch; see `trtd.runtime.protocol.Slot.run`. The outputs are new arrays each time."""
        inputs = join(requests)
        names = wanted(requests[0], self._outputs)
        try:
            values = self._session.run_with_ort_values(
                names, {name: self._wrap(name, array) for name, array in inputs.items()}, self._run_options
            )
            outputs = {name: unwrap(value) for name, value in zip(names, values, strict=True)}
        except MemoryError:
            raise
        except Exception as error:
            raise refusal(error) from error
        return cut(outputs, requests)

    def _wrap(self, name: str, array: np.ndarray) -> ort.OrtValue:
        # The value refers to the array's memory, and `inputs` keeps the array alive through the run.
        if name in self._bits:
            return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, self._bits[name])
        return ort.OrtValue.ortvalue_from_numpy(array)


def unwrap(value: ort.OrtValue) -> np.ndarray:
    """A value as an array of its own; what NumPy lacks as its bits."""
    dtype = DTYPES.get(value.data_type())
    if dtype not in BITS:
        array: np.ndarray = value.numpy()
        return array
    shape = tuple(value.shape())
    result = np.empty(shape, to_numpy(dtype))
    if result.nbytes:
        ctypes.memmove(result.ctypes.data, value.data_ptr(), result.nbytes)
    return result


def describe(session: ort.InferenceSession, settings: ModelSettings) -> ModelDescription:
    """What the session takes and gives.

    An output that is listed twice is given once. Outputs of types that do not travel are left out while there are
    others.

    Raises:
        trtd.errors.InvalidConfig: an input without a default, or every output, is of a type that does not travel.
    """
    where = f"model {settings.name!r}: {settings.path}"
    shaped = _shaped_names(settings.path)
    inputs = []
    for node in session.get_inputs():
        if node.type not in DTYPES:
            raise InvalidConfig(f"{where}: input {node.name!r} {untravelled(node.type)}")
        inputs.append(contract(node, shaped))
    listed = {node.name: node for node in session.get_outputs()}.values()
    outputs = [node for node in listed if node.type in DTYPES]
    unserved = tuple(Unserved(node.name, untravelled(node.type)) for node in listed if node.type not in DTYPES)
    if unserved and not outputs:
        raise InvalidConfig(f"{where}: no output travels: {unserved[0].name!r} {unserved[0].reason}")
    required, served = tuple(inputs), tuple(contract(node, shaped) for node in outputs)
    batching = objection(required, served, settings.max_batch)
    return ModelDescription(
        name=settings.name,
        version=settings.version,
        inputs=required,
        outputs=served,
        is_batched=not batching,
        max_batch=0 if batching else settings.max_batch,
        batching=batching,
        optional_inputs=tuple(
            contract(node, shaped) for node in session.get_overridable_initializers() if node.type in DTYPES
        ),
        unserved=unserved,
    )


def untravelled(type_name: str) -> str:
    """Why a tensor of this type does not travel, as the end of a sentence."""
    return f"is a {type_name}, which does not travel"


def contract(node: Any, shaped: frozenset[str]) -> TensorContract:
    """One input or output as clients are told of it; `shaped` are those that are known to have a shape."""
    if not node.shape and node.name not in shaped:
        return TensorContract(node.name, DTYPES[node.type], None)
    return TensorContract(node.name, DTYPES[node.type], tuple(None if is_free(dim) else dim for dim in node.shape))


def _shaped_names(path: str) -> frozenset[str]:
    """As far as the file tells; what it does not tell is left to ONNX Runtime, whose own format has no names here."""
    try:
        with Path(path).open("rb") as file:
            fd = file.fileno()
            return shaped_names(lambda at, count: os.pread(fd, count, at), os.fstat(fd).st_size)
    except (OSError, Unreadable):
        return frozenset()


def is_free(dim: int | str | None) -> bool:
    """Whether a dimension may vary: it has a symbol, nothing, or a negative number."""
    return not isinstance(dim, int) or dim < 0
