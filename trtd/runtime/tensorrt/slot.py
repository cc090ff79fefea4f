"""One slot: a stream, scratch memory, staging, and one context for each profile, used by one thread.

A batch goes through four steps, all on the slot's stream: stage and copy to the device, run (as a captured graph where
there is one), copy to the host, wait. Several slots overlap these steps with each other.

Nothing of one request can reach another's answer: a batch's rows are written over the very bytes that are sent to the
device, added rows are zeros, and answers are copied out of the staging before anybody else uses it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trtd.errors import InvalidInput, OutOfMemory, TrtdError
from trtd.runtime import cuda
from trtd.runtime.gather import cut
from trtd.runtime.protocol import Arrays
from trtd.runtime.tensorrt.allocator import ALIGNMENT_BYTES
from trtd.runtime.tensorrt.engine import Engine, Needs
from trtd.runtime.tensorrt.judge import CallRefused, judge
from trtd.runtime.tensorrt.outputs import GrowingOutputs, make_output_allocator
from trtd.runtime.tensorrt.profiles import Choice, Profile, Shape, Shapes, choose, show_ranges
from trtd.runtime.tensorrt.recorder import ErrorBook, make_recorder
from trtd.runtime.tensorrt.session import Session
from trtd.runtime.tensorrt.tensors import EngineTensor

RUNS_BEFORE_CAPTURE = 2
"""TensorRT settles its lazy state in the first run of a shape; and a shape that comes once is not worth a graph."""

CHUNK_BYTES = 1024 * 1024
"""Large inputs go to the device in such parts, each while the next one is written into the staging."""

Key = tuple[Shape, ...]


@dataclass(slots=True)
class Lane:
    """One context, on one profile.

    Attributes:
        profile: which.
        context: TensorRT's.
        key: shapes of the inputs that are set.
        outputs: shapes of the outputs for them.
        graphs: captured runs, with the shapes of their outputs.
        runs: how often a shape ran without a graph.
    """

    profile: Profile
    context: Any
    key: Key | None = None
    outputs: dict[str, Shape] = field(default_factory=dict)
    graphs: dict[Key, tuple[cuda.Graph, dict[str, Shape]]] = field(default_factory=dict)
    runs: dict[Key, int] = field(default_factory=dict)


class TensorRTSlot:
    """Runs batches of one model, one at a time."""

    def __init__(self, session: Session, engine: Engine, needs: Needs, what: str) -> None:
        """Take memory and make the contexts; the calling thread is the one that runs.

        Raises:
            trtd.errors.OutOfMemory: memory did not suffice; nothing is kept.
            trtd.core.faults.ProcessFault: the process is lost.
        """
        self._session = session
        self._engine = engine
        self._what = what
        self._book = ErrorBook()
        self._addresses: dict[str, int] = {}
        self._lanes: dict[int, Lane] = {}
        self._offsets: dict[str, int] = {}
        self._hosts: dict[str, np.ndarray] = {}
        self._cleanup = contextlib.ExitStack()
        self._may_capture = session.settings.max_graphs > 0 and self._is_capturable()
        try:
            cuda.use_device(session.device.ordinal)
            self._open(needs)
        except (cuda.CudaError, CallRefused) as error:
            # Until a context has our recorder, what it says goes to that of the engine.
            texts = self._book.take() + session.book.take()
            with contextlib.suppress(cuda.CudaError):
                self.close()
            raise judge(error, texts, f"{what}: opening a slot") from error
        except TrtdError:
            self.close()
            raise

    def run(self, requests: Sequence[Arrays]) -> Sequence[Arrays]:
        """Run one batch; see `trtd.runtime.protocol.Slot.run`."""
        if not self._session.reconciler.is_admitting:
            told = f"{self._session.reconciler.unaccounted_bytes} bytes of device memory are unaccounted for"
            raise OutOfMemory(f"{self._what}: {told}, above tensorrt.unaccounted_bytes")
        shapes = self._joined_shapes(requests)
        choice = choose(self._engine.profiles, shapes, is_batched=self._engine.is_batched)
        if choice is None:
            got = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise InvalidInput(f"{self._what}: got {got}, wanted {show_ranges(self._engine.profiles)}")
        try:
            outputs = self._run(requests, shapes, choice)
        except (cuda.CudaError, CallRefused) as error:
            self._forget_shapes()
            raise judge(error, self._book.take(), f"{self._what}: running a batch") from error
        return cut(outputs, requests)

    def warm_up(self, inputs: Sequence[Arrays]) -> None:
        """Run these often enough that nothing is left to be done lazily, capture included."""
        for one in inputs:
            for _ in range(RUNS_BEFORE_CAPTURE if self._may_capture else 1):
                self.run([one])

    @property
    def graphs(self) -> int:
        """How many runs are captured."""
        return sum(len(lane.graphs) for lane in self._lanes.values())

    def close(self) -> None:
        """Give everything back; repeatable."""
        for lane in self._lanes.values():
            for graph, _ in lane.graphs.values():
                graph.close()
        # Contexts go before the memory that they use.
        self._lanes.clear()
        self._cleanup.close()

    # Opening

    def _is_capturable(self) -> bool:
        engine = self._engine
        has_host = any(tensor.is_host for tensor in engine.tensors)
        return not (engine.is_streaming or engine.growing or has_host)

    def _open(self, needs: Needs) -> None:
        session, engine = self._session, self._engine
        settings = session.settings
        self._stream = cuda.Stream(settings.stream_priority)
        self._cleanup.callback(self._stream.close)
        self._event = cuda.Event(is_spinning=settings.is_spinning)
        self._cleanup.callback(self._event.close)
        scratch = self._take(needs.enqueue_bytes, "scratch memory")
        self._growing = GrowingOutputs(session.memory)
        self._cleanup.callback(self._growing.close)
        offset = 0
        for tensor in engine.tensors:
            size_bytes = needs.tensor_bytes[tensor.name]
            if tensor.is_host:
                self._hosts[tensor.name] = np.zeros(max(size_bytes // tensor.numpy.itemsize, 1), tensor.numpy)
            elif tensor.name not in engine.growing:
                self._addresses[tensor.name] = self._take(size_bytes, f"tensor {tensor.name!r}")
                self._offsets[tensor.name] = offset
                offset += -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        self._staging = session.staging.take(max(offset, ALIGNMENT_BYTES), self._what)
        self._cleanup.callback(session.staging.give_back, self._staging)
        recorder = make_recorder(session.module, self._book, session.sink)
        outputs = make_output_allocator(session.module, self._growing, session.on_defect)
        auxiliary = [cuda.Stream(settings.stream_priority) for _ in range(engine.raw.num_aux_streams)]
        for stream in auxiliary:
            self._cleanup.callback(stream.close)
        for profile in engine.profiles:
            context = engine.make_context()
            context.error_recorder = recorder
            context.temporary_allocator = session.allocator
            if settings.persistent_l2_bytes:
                context.persistent_cache_limit = settings.persistent_l2_bytes // len(engine.profiles)
            context.set_device_memory(scratch, needs.enqueue_bytes)
            if len(self._book):
                raise CallRefused("set_device_memory")
            if auxiliary:
                context.set_aux_streams([stream.number for stream in auxiliary])
            if not context.set_optimization_profile_async(profile.index, self._stream.number):
                raise CallRefused("set_optimization_profile_async")
            for tensor in engine.tensors:
                self._bind(context, tensor, outputs)
            self._lanes[profile.index] = Lane(profile, context)
        self._stream.synchronize()

    def _bind(self, context: Any, tensor: EngineTensor, outputs: Any) -> None:
        if tensor.is_host:
            address = int(self._hosts[tensor.name].ctypes.data)
        elif tensor.name in self._engine.growing:
            if not context.set_output_allocator(tensor.name, outputs):
                raise CallRefused("set_output_allocator")
            return
        else:
            address = self._addresses[tensor.name]
        if not context.set_tensor_address(tensor.name, address):
            raise CallRefused("set_tensor_address")

    def _take(self, size_bytes: int, what: str) -> int:
        address = self._session.memory.allocate(max(size_bytes, ALIGNMENT_BYTES), f"{what} of {self._what}")
        self._cleanup.callback(self._session.memory.free, address)
        return address

    # Running

    def _joined_shapes(self, requests: Sequence[Arrays]) -> dict[str, Shape]:
        first = requests[0]
        if len(requests) == 1:
            return {tensor.name: first[tensor.name].shape for tensor in self._engine.inputs}
        return {
            tensor.name: (sum(request[tensor.name].shape[0] for request in requests), *first[tensor.name].shape[1:])
            for tensor in self._engine.inputs
        }

    def _run(self, requests: Sequence[Arrays], shapes: Shapes, choice: Choice) -> dict[str, np.ndarray]:
        lane = self._lanes[choice.profile.index]
        self._stage(requests, choice)
        key = tuple(choice.shapes.values())
        captured = lane.graphs.get(key)
        if captured is not None:
            graph, output_shapes = captured
            graph.launch(self._stream)
            self._event.wait_for(self._stream)
            return self._collect(output_shapes, shapes, choice)
        self._set_shapes(lane, key, choice)
        self._enqueue(lane)
        self._event.wait_for(self._stream)
        outputs = self._collect(lane.outputs, shapes, choice)
        self._consider_capture(lane, key)
        return outputs

    def _stage(self, requests: Sequence[Arrays], choice: Choice) -> None:
        """Write a batch into the staging and start its copies, each request's as soon as it is written."""
        for tensor in self._engine.inputs:
            if tensor.is_host:
                values = requests[0][tensor.name]
                self._hosts[tensor.name][: values.size] = values.reshape(-1)
                continue
            end = sent = offset = self._offsets[tensor.name]
            for request in requests:
                array = request[tensor.name]
                flat = array.reshape(-1).view(np.uint8)
                for start in range(0, array.nbytes, CHUNK_BYTES):
                    part = flat[start : start + CHUNK_BYTES]
                    self._staging.bytes[end : end + part.nbytes] = part
                    end += part.nbytes
                    if end - sent >= CHUNK_BYTES:
                        self._send(tensor, sent, end)
                        sent = end
            padded_end = offset + tensor.size_bytes(choice.shapes[tensor.name])
            if padded_end > end:
                self._staging.bytes[end:padded_end] = 0
            if padded_end > sent:
                self._send(tensor, sent, padded_end)

    def _send(self, tensor: EngineTensor, start: int, end: int) -> None:
        """Start the copy of a part of the staging to where it belongs on the device."""
        address = self._addresses[tensor.name] + start - self._offsets[tensor.name]
        cuda.copy_to_device(address, self._staging.address + start, end - start, self._stream)

    def _set_shapes(self, lane: Lane, key: Key, choice: Choice) -> None:
        if lane.key == key and not self._hosts:
            return
        lane.key = None
        lane.outputs = self._engine.output_shapes(lane.context, lane.profile, choice.shapes)
        missing = lane.context.infer_shapes()
        if missing:
            raise CallRefused(f"infer_shapes ({', '.join(missing)} missing)")
        lane.key = key

    def _enqueue(self, lane: Lane) -> None:
        if not lane.context.execute_async_v3(self._stream.number):
            raise CallRefused("execute_async_v3")
        self._copy_back(lane.outputs)

    def _copy_back(self, output_shapes: Mapping[str, Shape]) -> None:
        for tensor in self._engine.outputs:
            offset = self._offsets.get(tensor.name)
            if offset is None:
                continue
            size_bytes = tensor.size_bytes(output_shapes[tensor.name])
            if size_bytes:
                address = self._addresses[tensor.name]
                cuda.copy_to_host(self._staging.address + offset, address, size_bytes, self._stream)

    def _collect(self, output_shapes: Mapping[str, Shape], shapes: Shapes, choice: Choice) -> dict[str, np.ndarray]:
        """The outputs as arrays of their own, without the rows that were added."""
        items = next(iter(shapes.values()))[0] if choice.shapes is not shapes else None
        collected = {}
        for tensor in self._engine.outputs:
            if tensor.name in self._engine.growing:
                collected[tensor.name] = self._collect_growing(tensor)
                continue
            shape = output_shapes[tensor.name]
            if tensor.is_host:
                view = self._hosts[tensor.name][: int(np.prod(shape, dtype=np.int64))].reshape(shape)
            else:
                view = self._staging.view(self._offsets[tensor.name], shape, tensor.numpy)
            collected[tensor.name] = np.array(view if items is None else view[:items])
        return collected

    def _collect_growing(self, tensor: EngineTensor) -> np.ndarray:
        array = np.empty(self._growing.shapes[tensor.name], tensor.numpy)
        if array.nbytes:
            address = self._growing.address(tensor.name)
            cuda.copy_to_host(int(array.ctypes.data), address, array.nbytes, self._stream)
            self._event.wait_for(self._stream)
        return array

    def _consider_capture(self, lane: Lane, key: Key) -> None:
        """Capture a shape that has run often enough. The answer of the run before is safe whatever comes of it."""
        if not self._may_capture or self.graphs >= self._session.settings.max_graphs:
            return
        lane.runs[key] = lane.runs.get(key, 0) + 1
        if lane.runs[key] < RUNS_BEFORE_CAPTURE:
            return
        try:
            graph = cuda.Graph(self._stream, lambda: self._enqueue(lane))
        except (cuda.CudaError, CallRefused) as error:
            # What cannot be captured runs as before; a lost process is found by the next run.
            self._may_capture = False
            texts = self._book.take()
            fields = {"model": self._what, "cause": str(error), "texts": texts}
            self._session.sink("graph.capture_refused", fields)
            return
        del lane.runs[key]
        lane.graphs[key] = (graph, dict(lane.outputs))

    def _forget_shapes(self) -> None:
        for lane in self._lanes.values():
            lane.key = None
