"""One slot: a stream, scratch memory, buffers, and one context for each profile, used by one thread.

A batch goes through four steps, all on the slot's stream: stage and copy to the device, run (as a captured graph where
there is one), copy to the host, wait. Several slots overlap these steps with each other. Copies and staging are in
`trtd.runtime.tensorrt.buffers`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trtd.errors import InvalidInput, OutOfMemory, TrtdError
from trtd.runtime import cuda
from trtd.runtime.gather import cut, joined_shapes
from trtd.runtime.protocol import Arrays, Shapes
from trtd.runtime.tensorrt.buffers import Buffers
from trtd.runtime.tensorrt.engine import Engine, Needs
from trtd.runtime.tensorrt.judge import CallRefused, judge
from trtd.runtime.tensorrt.profiles import Choice, Profile, Shape, choose, show_ranges
from trtd.runtime.tensorrt.recorder import ErrorBook, make_recorder
from trtd.runtime.tensorrt.scratch import Promise
from trtd.runtime.tensorrt.session import Session

RUNS_BEFORE_CAPTURE = 2
"""TensorRT settles its lazy state in the first run of a shape; and a shape that comes once is not worth a graph."""

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

    def __init__(self, session: Session, engine: Engine, needs: Needs, promise: Promise, what: str) -> None:
        """Take memory and make the contexts; the calling thread is the one that runs.

        Raises:
            trtd.errors.OutOfMemory: memory did not suffice; nothing is kept.
            trtd.core.faults.ProcessFault: the process is lost.
        """
        self._session = session
        self._engine = engine
        self._what = what
        self._names = [tensor.name for tensor in engine.inputs]
        self._book = ErrorBook()
        self._lanes: dict[int, Lane] = {}
        self._cleanup = contextlib.ExitStack()
        self._has_host = any(tensor.is_host for tensor in engine.tensors)
        self._may_capture = session.settings.max_graphs > 0 and self._is_capturable()
        try:
            cuda.use_device(session.device.ordinal)
            self._open(needs, promise)
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
        shapes = joined_shapes(requests, self._names)
        choice = choose(self._engine.profiles, shapes, is_batched=self._engine.is_batched)
        if choice is None:
            got = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise InvalidInput(f"{self._what}: got {got}, wanted {show_ranges(self._engine.profiles)}")
        with self._session.throttle.turn() as is_slowed, self._scratch.lock:
            try:
                outputs = self._run(requests, shapes, choice)
                if is_slowed:
                    self._buffers.give_back_grown()
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
        return not (self._engine.is_streaming or self._engine.growing or self._has_host)

    def _open(self, needs: Needs, promise: Promise) -> None:
        session, engine = self._session, self._engine
        settings = session.settings
        self._stream = cuda.Stream(settings.stream_priority)
        self._cleanup.callback(self._stream.close)
        self._event = cuda.Event(is_spinning=settings.is_spinning)
        self._cleanup.callback(self._event.close)
        self._scratch = session.scratch.take(promise, self._what)
        self._cleanup.callback(session.scratch.give_back, promise, self._scratch)
        self._buffers = Buffers(session, engine, needs, self._what, self._cleanup)
        recorder = make_recorder(session.module, self._book, session.sink)
        auxiliary = [cuda.Stream(settings.stream_priority) for _ in range(engine.raw.num_aux_streams)]
        for stream in auxiliary:
            self._cleanup.callback(stream.close)
        for profile in engine.profiles:
            context = engine.make_context()
            context.error_recorder = recorder
            context.temporary_allocator = session.allocator
            if settings.persistent_l2_bytes:
                context.persistent_cache_limit = settings.persistent_l2_bytes // len(engine.profiles)
            context.set_device_memory(self._scratch.address, self._scratch.size_bytes)
            if len(self._book):
                raise CallRefused("set_device_memory")
            if auxiliary:
                context.set_aux_streams([stream.number for stream in auxiliary])
            if not context.set_optimization_profile_async(profile.index, self._stream.number):
                raise CallRefused("set_optimization_profile_async")
            self._buffers.bind(context)
            self._lanes[profile.index] = Lane(profile, context)
        self._stream.synchronize()

    # Running

    def _run(self, requests: Sequence[Arrays], shapes: Shapes, choice: Choice) -> dict[str, np.ndarray]:
        lane = self._lanes[choice.profile.index]
        self._buffers.stage(requests, choice, self._stream)
        key = tuple(choice.shapes.values())
        captured = lane.graphs.get(key)
        if captured is not None:
            graph, output_shapes = captured
            graph.launch(self._stream)
            self._event.wait_for(self._stream)
            return self._buffers.collect(output_shapes, shapes, choice, self._stream, self._event)
        self._set_shapes(lane, key, choice)
        self._enqueue(lane)
        self._event.wait_for(self._stream)
        outputs = self._buffers.collect(lane.outputs, shapes, choice, self._stream, self._event)
        self._consider_capture(lane, key)
        return outputs

    def _set_shapes(self, lane: Lane, key: Key, choice: Choice) -> None:
        if lane.key == key and not self._has_host:
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
        self._buffers.copy_back(lane.outputs, self._stream)

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
