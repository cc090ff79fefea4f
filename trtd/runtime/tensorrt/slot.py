"""One slot: a stream, scratch memory, buffers, one context for each profile and one for each graph, used by one thread.

A batch goes through four steps, all on the slot's stream: stage and copy to the device, run (as a captured graph where
there is one), copy to the host, wait. Several slots overlap these steps with each other. Copies and staging are in
`trtd.runtime.tensorrt.buffers`, when a run is captured is decided in `trtd.runtime.tensorrt.graphs`.
"""

from __future__ import annotations

import contextlib
import threading
import time
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
from trtd.runtime.tensorrt.graphs import RUNS_BEFORE_CAPTURE, Graphs
from trtd.runtime.tensorrt.judge import CallRefused, ask, assign, insist, judge
from trtd.runtime.tensorrt.l2 import GRAPHS_OF_PROFILE, L2Share
from trtd.runtime.tensorrt.profiles import Choice, Profile, Shape, choose, show_ranges, show_values
from trtd.runtime.tensorrt.recorder import ErrorBook, make_recorder
from trtd.runtime.tensorrt.scratch import Promise
from trtd.runtime.tensorrt.session import Session

Key = tuple[Shape, ...]


@dataclass(slots=True)
class Lane:
    """One context on one profile, for the shapes that have no graph.

    Attributes:
        profile: which.
        context: TensorRT's.
        key: shapes of the inputs that are set.
        outputs: shapes of the outputs for them.
    """

    profile: Profile
    context: Any
    key: Key | None = None
    outputs: dict[str, Shape] = field(default_factory=dict)


@dataclass(slots=True)
class Captured:
    """A captured run, with a context of its own: its shapes never change again.

    A context keeps state for its shapes in device memory, which the graph reads whenever it runs. Were other shapes set
    in between, the graph would read theirs.

    Attributes:
        graph: to be launched.
        context: alive for as long as the graph is.
        outputs: shapes of the outputs.
        l2_bytes: that the context may set apart.
    """

    graph: cuda.Graph
    context: Any
    outputs: dict[str, Shape]
    l2_bytes: int


class TensorRTSlot:
    """Runs batches of one model, one at a time."""

    def __init__(self, session: Session, engine: Engine, needs: Needs, promise: Promise, what: str, owner: str) -> None:
        """Take memory and make the contexts; the calling thread is the one that runs.

        Args:
            session: of the worker.
            engine: whose contexts.
            needs: of one slot.
            promise: of the model, in which the slot's memory is counted.
            what: the model, for errors.
            owner: the model, for the ledger.

        Raises:
            trtd.errors.OutOfMemory: memory did not suffice; nothing is kept.
            trtd.core.faults.ProcessFault: the process is lost.
        """
        self._session = session
        self._engine = engine
        self._what = what
        self._owner = owner
        self._names = [tensor.name for tensor in engine.inputs]
        self._book = ErrorBook()
        self._lanes: dict[int, Lane] = {}
        self._cleanup = contextlib.ExitStack()
        self._has_host = any(tensor.is_host for tensor in engine.tensors)
        self._may_capture = session.settings.max_graphs > 0 and self._is_capturable()
        self._graphs: Graphs[Captured] = Graphs(session.settings.max_graphs if self._may_capture else 0)
        self._l2 = self._l2_share()
        self._thread = 0
        try:
            self._use_device()
            session.memory.act_for(owner)
            self._open(needs, promise)
        except (cuda.CudaError, CallRefused) as error:
            texts = self._book.take()
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
        profiles = self._fitting_profiles(requests) if self._has_host else self._engine.profiles
        choice = choose(profiles, shapes, is_batched=self._engine.is_batched)
        if choice is None:
            got = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise InvalidInput(f"{self._what}: got {got}, wanted {show_ranges(self._engine.profiles)}")
        with self._session.throttle.turn() as is_slowed, self._scratch.lock:
            try:
                self._use_device()
                self._session.memory.act_for(self._owner)
                # What was said during runs that went well says nothing of this one.
                self._book.clear()
                outputs = self._run(requests, shapes, choice)
                if is_slowed:
                    self._buffers.give_back_grown()
            except (cuda.CudaError, CallRefused) as error:
                self._forget_shapes()
                raise judge(error, self._book.take(), f"{self._what}: running a batch", self._stream) from error
        return cut(outputs, requests)

    def settle(self, request: Arrays) -> None:
        """Run it until nothing is left to be done lazily, capture included."""
        self._graphs.is_eager = True
        try:
            for _ in range(RUNS_BEFORE_CAPTURE if self._may_capture else 1):
                self.run([request])
        finally:
            self._graphs.is_eager = False

    @property
    def graphs(self) -> int:
        """How many runs are captured."""
        return len(self._graphs)

    def close(self) -> None:
        """Give everything back; repeatable, from any thread."""
        with contextlib.suppress(cuda.CudaError):
            cuda.use_device(self._session.device.ordinal)
        for captured in self._graphs.take_all():
            captured.graph.close()
        # Contexts go before the memory that they use.
        self._lanes.clear()
        self._cleanup.close()

    # Opening

    def _fitting_profiles(self, requests: Sequence[Arrays]) -> Sequence[Profile]:
        """Those that take the values of the shape tensors. Such a model is not batched: there is one request.

        Raises:
            trtd.errors.InvalidInput: there is none.
        """
        hosts = [tensor.name for tensor in self._engine.inputs if tensor.is_host]
        values = {name: tuple(requests[0][name].reshape(-1).tolist()) for name in hosts}
        fitting = [profile for profile in self._engine.profiles if profile.admits_values(values)]
        if not fitting:
            got = ", ".join(f"{name} with the values {list(value)}" for name, value in values.items())
            raise InvalidInput(f"{self._what}: got {got}, wanted {show_values(self._engine.profiles)}")
        return fitting

    def _use_device(self) -> None:
        """Each thread has to say once which device it works on; a slot may stray to another thread."""
        thread = threading.get_ident()
        if thread != self._thread:
            cuda.use_device(self._session.device.ordinal)
            self._thread = thread

    def _is_capturable(self) -> bool:
        return not (self._engine.is_streaming or self._engine.growing or self._has_host)

    def _l2_share(self) -> L2Share:
        """For the contexts of graphs where there are any: what has a graph runs most."""
        session, profiles = self._session, len(self._engine.profiles)
        pieces = min(session.settings.max_graphs, GRAPHS_OF_PROFILE * profiles) if self._may_capture else profiles
        return L2Share(session.settings.persistent_l2_bytes, session.scratch.models, pieces)

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
        self._recorder = make_recorder(session.module, self._book, session.sink)
        self._auxiliary = [cuda.Stream(settings.stream_priority) for _ in range(engine.raw.num_aux_streams)]
        for one in self._auxiliary:
            self._cleanup.callback(one.close)
        for profile in engine.profiles:
            l2_bytes = 0 if self._may_capture else self._l2.take()
            self._lanes[profile.index] = Lane(profile, self._make_context(profile, l2_bytes))
        self._stream.synchronize()

    def _make_context(self, profile: Profile, l2_bytes: int) -> Any:
        """A context on a profile that knows all memory, and reports to this slot."""
        session = self._session
        with session.alone:
            # Until a context has our recorder, what it says goes to that of the engine, which all slots share.
            session.book.clear()
            try:
                context = self._engine.make_context()
                assign(context, "error_recorder", self._recorder)
                assign(context, "temporary_allocator", session.allocator)
                if l2_bytes:
                    assign(context, "persistent_cache_limit", l2_bytes)
                ask(context.set_device_memory, self._scratch.address, self._scratch.size_bytes)
                if len(self._book):
                    raise CallRefused("set_device_memory")
                if self._auxiliary:
                    ask(context.set_aux_streams, [one.number for one in self._auxiliary])
                insist(context.set_optimization_profile_async, profile.index, self._stream.number)
                self._buffers.bind(context)
            except CallRefused:
                for text in session.book.take():
                    self._book.note(0, text)
                raise
        return context

    # Running

    def _run(self, requests: Sequence[Arrays], shapes: Shapes, choice: Choice) -> dict[str, np.ndarray]:
        stream = self._stream
        lane = self._lanes[choice.profile.index]
        self._buffers.stage(requests, choice, stream)
        key = tuple(choice.shapes.values())
        captured = self._graphs.find((lane.profile.index, key))
        if captured is not None:
            captured.graph.launch(stream)
            self._event.wait_for(stream)
            return self._buffers.collect(captured.outputs, shapes, choice, stream, self._event)
        if lane.key != key or self._has_host:
            lane.key = None
            lane.outputs = self._set_shapes(lane.context, choice)
            lane.key = key
        self._enqueue(lane.context, lane.outputs)
        self._event.wait_for(stream)
        outputs = self._buffers.collect(lane.outputs, shapes, choice, stream, self._event)
        if self._graphs.note_run((lane.profile.index, key)):
            self._capture((lane.profile.index, key), choice)
        return outputs

    def _set_shapes(self, context: Any, choice: Choice) -> dict[str, Shape]:
        """Set the shapes of the inputs; those of the outputs."""
        outputs = self._engine.output_shapes(context, choice.profile, choice.shapes)
        missing = ask(context.infer_shapes)
        if missing:
            raise CallRefused("infer_shapes", f"{', '.join(missing)} missing")
        return outputs

    def _enqueue(self, context: Any, outputs: dict[str, Shape]) -> None:
        insist(context.execute_async_v3, self._stream.number)
        self._buffers.copy_back(outputs, self._stream)

    def _capture(self, key: tuple[int, Key], choice: Choice) -> None:
        """Capture the shape that just ran. The answer of that run is safe whatever comes of it."""
        if self._graphs.is_full:
            oldest = self._graphs.take_oldest()
            oldest.graph.close()
            self._l2.give_back(oldest.l2_bytes)
            del oldest
        l2_bytes = self._l2.take()
        began_at = time.perf_counter()
        try:
            context = self._make_context(choice.profile, l2_bytes)
            outputs = self._set_shapes(context, choice)
            # TensorRT settles the lazy state of a context in its first run, which cannot be captured.
            self._enqueue(context, outputs)
            self._event.wait_for(self._stream)
            with self._session.alone:
                graph = cuda.Graph(self._stream, lambda: self._enqueue(context, outputs))
        except (cuda.CudaError, CallRefused) as error:
            # The shape runs without a graph, as before; a lost process is found by the next run.
            self._l2.give_back(l2_bytes)
            runs = self._graphs.note_failure(key)
            fields = {"model": self._what, "cause": str(error), "texts": self._book.take(), "retry_after_runs": runs}
            self._session.sink("graph.capture_refused", fields)
            return
        took_s = time.perf_counter() - began_at
        self._graphs.keep(key, Captured(graph, context, outputs, l2_bytes), took_s)

    def _forget_shapes(self) -> None:
        for lane in self._lanes.values():
            lane.key = None
