"""A TensorRT and a CUDA of plain Python, for slots without a GPU: device memory is the host's, streams run at once.

The engine answers y = x + the items of the shape that is set. That number is state which a context keeps for its
shapes, outside of what a graph copies: a graph reads it when it runs, as real engines do.
"""

from __future__ import annotations

import ctypes
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.support.bindings import stand_in
from trtd.runtime.tensorrt.pinned import PinnedMemory
from trtd.runtime.tensorrt.profiles import Profile, Range
from trtd.runtime.tensorrt.recorder import ErrorBook
from trtd.runtime.tensorrt.scratch import ScratchPool
from trtd.runtime.tensorrt.throttle import Throttle
from trtd.wire.tensorrt import TensorRTSettings

WIDTH = 4
DEVICE = 1


class HostMemory:
    """Device memory that lies on the host."""

    is_high = False

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}
        self.left = -1

    def act_for(self, owner: str) -> None:
        self.owner = owner

    def allocate(self, size_bytes: int, what: str) -> int:
        block = ctypes.create_string_buffer(size_bytes)
        self.held[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, address: int, stream: Any = None) -> bool:
        return self.held.pop(address, None) is not None


class Staging:
    """Pinned memory that is not pinned."""

    def __init__(self, size_bytes: int) -> None:
        self.bytes = np.zeros(size_bytes, np.uint8)
        self.address = int(self.bytes.ctypes.data)

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        size_bytes = dtype.itemsize * int(np.prod(shape))
        return self.bytes[offset : offset + size_bytes].view(dtype).reshape(shape)


class FakeCuda:
    """Takes the place of what `trtd.runtime.cuda` offers to slots."""

    def __init__(self) -> None:
        self.streams: dict[int, Any] = {}
        self.captures: list[threading.Thread] = []
        self.failures: list[Exception] = []
        self.graphs: list[Any] = []
        self.used: dict[int, int] = {}
        fake = self

        class Stream:
            def __init__(self, priority: int = 0) -> None:
                self.number = self.handle = len(fake.streams) + 1
                self.captured: list[Any] | None = None
                fake.streams[self.number] = self

            def put(self, work: Any) -> None:
                if fake.used.get(threading.get_ident()) != DEVICE:
                    raise AssertionError("this thread works on another device")
                if self.captured is None:
                    work()
                else:
                    self.captured.append(work)

            def synchronize(self) -> None:
                assert self.captured is None, "900"

            def close(self) -> None:
                pass

        class Event:
            def __init__(self, *, is_spinning: bool) -> None:
                pass

            def wait_for(self, stream: Any) -> None:
                stream.synchronize()

            def close(self) -> None:
                pass

        class Graph:
            def __init__(self, stream: Any, work: Any) -> None:
                if fake.failures:
                    raise fake.failures.pop(0)
                stream.captured = []
                try:
                    work()
                    self._work = stream.captured
                finally:
                    stream.captured = None
                self.is_open = True
                self.launches = 0
                fake.graphs.append(self)

            def launch(self, stream: Any) -> None:
                assert self.is_open
                self.launches += 1
                for one in self._work:
                    stream.put(one)

            def close(self) -> None:
                self.is_open = False

        self.Stream, self.Event, self.Graph = Stream, Event, Graph

    def use_device(self, ordinal: int) -> None:
        """Of the calling thread."""
        self.used[threading.get_ident()] = ordinal

    def copy(self, to: int, source: int, size_bytes: int, stream: Any) -> None:
        """Either way."""
        stream.put(lambda: ctypes.memmove(to, source, size_bytes))

    def replace(self, cuda: Any, monkeypatch: Any) -> None:
        """Put it in the place of the real one."""
        for name in ("Stream", "Event", "Graph", "use_device"):
            monkeypatch.setattr(cuda, name, getattr(self, name))
        monkeypatch.setattr(cuda, "copy_to_device", self.copy)
        monkeypatch.setattr(cuda, "copy_to_host", self.copy)
        monkeypatch.setattr(cuda, "forget_last_error", lambda: None)
        monkeypatch.setattr(cuda, "probe", lambda _stream=None: 0)


class FakeContext:
    """One of the fake engine; shapes are set, then a run goes to a stream."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.active_optimization_profile = -1
        self.error_recorder: Any = None
        self.persistent_cache_limit = 0
        self._addresses: dict[str, int] = {}
        self._items = 0

    def set_device_memory(self, address: int, size_bytes: int) -> None:
        self._engine.note("set_device_memory")

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self._engine.note("set_optimization_profile_async")
        self.active_optimization_profile = index
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._engine.note("set_input_shape")
        self._items = shape[0]
        return True

    def infer_shapes(self) -> list[str]:
        self._engine.note("infer_shapes")
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self._items, WIDTH)

    def execute_async_v3(self, stream: int) -> bool:
        self._engine.note("execute_async_v3")
        size = self._items * WIDTH

        def run() -> None:
            x, y = (
                np.frombuffer((ctypes.c_float * size).from_address(self._addresses[name]), np.float32) for name in "xy"
            )
            # Read when it runs: what was set for other shapes meanwhile is found here.
            y[:] = x + self._items

        self._engine.cuda.streams[stream].put(run)
        return True


class FakeEngine:
    """As `trtd.runtime.tensorrt.engine.Engine`, for a model of one input and one output."""

    is_streaming = False
    growing: frozenset[str] = frozenset()
    is_batched = True
    most_items = 512

    def __init__(self, cuda: FakeCuda) -> None:
        def tensor(name: str, is_input: bool) -> Any:
            return SimpleNamespace(
                name=name,
                numpy=np.dtype(np.float32),
                shape=(-1, WIDTH),
                is_input=is_input,
                is_host=False,
                size_bytes=lambda shape: int(np.prod(shape)) * 4,
            )

        self.cuda = cuda
        self.inputs, self.outputs = (tensor("x", True),), (tensor("y", False),)
        self.tensors = (*self.inputs, *self.outputs)
        self.profiles = (Profile(0, {"x": Range((1, WIDTH), (1, WIDTH), (512, WIDTH))}),)
        self.raw = SimpleNamespace(num_aux_streams=0)
        self.contexts: list[FakeContext] = []
        self.calls: list[str] = []
        self.failures: dict[str, Exception] = {}

    def note(self, call: str) -> None:
        """A context was asked for something; raises what a test wants it to."""
        self.calls.append(call)
        if call in self.failures:
            raise self.failures.pop(call)

    def make_context(self) -> Any:
        self.note("create_execution_context")
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]

    def output_shapes(self, context: Any, profile: Profile, shapes: Any) -> dict[str, tuple[int, ...]]:
        from trtd.runtime.tensorrt.judge import insist

        insist(context.set_input_shape, "x", shapes["x"])
        return {"y": context.get_tensor_shape("y")}


def make_session(events: list[Any], **settings: Any) -> Any:
    """A session whose device is plain Python; made where `cuda.bindings` or their stand-in can be imported."""
    from trtd.runtime.tensorrt.session import Session

    memory: Any = HostMemory()
    staging = SimpleNamespace(take=lambda size_bytes, _: Staging(size_bytes), give_back=lambda _: None)
    return Session(
        module=stand_in(passes_stream_first=True),
        settings=TensorRTSettings(**settings),
        slots=1,
        device=SimpleNamespace(ordinal=DEVICE),  # type: ignore[arg-type]
        memory=memory,
        allocator=None,
        scratch=ScratchPool(memory, 1),
        throttle=Throttle(lambda: False),
        staging=staging,  # type: ignore[arg-type]
        pinned=PinnedMemory(lambda *_: "", lambda _: None, lambda *_: None),
        logger=None,
        book=ErrorBook(),
        sink=lambda event, fields: events.append((event, fields)),
        reconciler=SimpleNamespace(is_admitting=True, unaccounted_bytes=0),  # type: ignore[arg-type]
        on_defect=events.append,
    )
