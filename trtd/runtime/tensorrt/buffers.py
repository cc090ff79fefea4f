"""The tensors of one slot on both sides, staging and device, and the copies between them.

Nothing of one request can reach another's answer: a batch's rows are written over the very bytes that are sent to the
device, added rows are zeros, and answers are copied out of the staging before anybody else uses it. How inputs get to
the device is in `trtd.runtime.tensorrt.upload`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from trtd.runtime import cuda
from trtd.runtime.protocol import Arrays, Shapes
from trtd.runtime.tensorrt.allocator import ALIGNMENT_BYTES
from trtd.runtime.tensorrt.engine import Engine, Needs
from trtd.runtime.tensorrt.judge import insist
from trtd.runtime.tensorrt.outputs import GrowingOutputs, make_output_allocator
from trtd.runtime.tensorrt.profiles import Choice, Shape
from trtd.runtime.tensorrt.session import Session
from trtd.runtime.tensorrt.tensors import EngineTensor
from trtd.runtime.tensorrt.upload import parts_of, upload


class Buffers:
    """Memory for every tensor at its largest; what the engine wants on the host stays there."""

    def __init__(self, session: Session, engine: Engine, needs: Needs, what: str, cleanup: ExitStack) -> None:
        """Take the memory; `cleanup` gives it back, also when this fails half-way.

        Raises:
            trtd.errors.OutOfMemory: device, watermark or staging refused.
            trtd.runtime.cuda.CudaError: the device is not sound.
        """
        self._engine = engine
        self._pinned = session.pinned
        self._addresses: dict[str, int] = {}
        self._offsets: dict[str, int] = {}
        self._hosts: dict[str, np.ndarray] = {}
        self._growing = GrowingOutputs(session.memory)
        cleanup.callback(self._growing.close)
        offset = 0
        for tensor in engine.tensors:
            size_bytes = needs.tensor_bytes[tensor.name]
            if tensor.is_host:
                self._hosts[tensor.name] = np.zeros(max(size_bytes // tensor.numpy.itemsize, 1), tensor.numpy)
            elif tensor.name not in engine.growing:
                device_bytes = max(size_bytes, ALIGNMENT_BYTES)
                address = session.memory.allocate(device_bytes, f"tensor {tensor.name!r} of {what}")
                cleanup.callback(session.memory.free, address)
                self._addresses[tensor.name] = address
                self._offsets[tensor.name] = offset
                offset += -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        self._staging = session.staging.take(max(offset, ALIGNMENT_BYTES), what)
        cleanup.callback(session.staging.give_back, self._staging)
        self._allocator = make_output_allocator(session.module, self._growing, session.on_defect)

    def bind(self, context: Any) -> None:
        """Tell a context where all its tensors are.

        Raises:
            CallRefused: TensorRT refused an address.
        """
        for tensor in self._engine.tensors:
            if tensor.name in self._engine.growing:
                insist(context.set_output_allocator, tensor.name, self._allocator)
                continue
            host = self._hosts.get(tensor.name)
            address = self._addresses[tensor.name] if host is None else int(host.ctypes.data)
            insist(context.set_tensor_address, tensor.name, address)

    def stage(self, requests: Sequence[Arrays], choice: Choice, stream: cuda.Stream) -> None:
        """Start the copies of a batch to the device; the event of the run covers them."""
        for number, tensor in enumerate(self._engine.inputs):
            if tensor.is_host:
                values = requests[0][tensor.name]
                self._hosts[tensor.name][: values.size] = values.reshape(-1)
                continue
            offset = self._offsets[tensor.name]
            padded_bytes = tensor.size_bytes(choice.shapes[tensor.name])
            upload(
                parts_of(requests, number, tensor.name),
                padded_bytes,
                self._staging.bytes[offset : offset + padded_bytes],
                self._addresses[tensor.name],
                self._pinned,
                partial(cuda.copy_to_device, stream=stream),
            )

    def copy_back(self, output_shapes: Mapping[str, Shape], stream: cuda.Stream) -> None:
        """Start the copies of the outputs whose size is known."""
        for tensor in self._engine.outputs:
            offset = self._offsets.get(tensor.name)
            if offset is None:
                continue
            size_bytes = tensor.size_bytes(output_shapes[tensor.name])
            if size_bytes:
                address = self._addresses[tensor.name]
                cuda.copy_to_host(self._staging.address + offset, address, size_bytes, stream)

    def collect(
        self, output_shapes: Mapping[str, Shape], shapes: Shapes, choice: Choice, stream: cuda.Stream, event: cuda.Event
    ) -> dict[str, np.ndarray]:
        """The outputs as arrays of their own, without the rows that were added; the run has ended."""
        items = next(iter(shapes.values()))[0] if choice.shapes is not shapes else None
        collected = {}
        for tensor in self._engine.outputs:
            if tensor.name in self._engine.growing:
                collected[tensor.name] = self._collect_growing(tensor, stream, event)
                continue
            shape = output_shapes[tensor.name]
            if tensor.is_host:
                view = self._hosts[tensor.name][: int(np.prod(shape, dtype=np.int64))].reshape(shape)
            else:
                view = self._staging.view(self._offsets[tensor.name], shape, tensor.numpy)
            collected[tensor.name] = np.array(view if items is None else view[:items])
        return collected

    def _collect_growing(self, tensor: EngineTensor, stream: cuda.Stream, event: cuda.Event) -> np.ndarray:
        array = np.empty(self._growing.shapes[tensor.name], tensor.numpy)
        if array.nbytes:
            address = self._growing.address(tensor.name)
            cuda.copy_to_host(int(array.ctypes.data), address, array.nbytes, stream)
            event.wait_for(stream)
        return array

    def give_back_grown(self) -> None:
        """Keep no memory for outputs of unknown size until the next run; every run has ended."""
        self._growing.close()
