"""Inputs in shared memory of clients on their way to the device: right for every plan, and in any company."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.gpu.conftest import check, model_settings, reference
from tests.gpu.test_answers import CASES, GRAPHS, PLANS
from tests.support.daemon import Daemon, wait_until
from tests.support.memory import ClientMemory, mapped_count
from trtd.runtime.tensorrt.upload import MIN_DIRECT_BYTES
from trtd.wire.messages import Place, TensorSpec
from trtd.wire.tensors import to_frame
from trtd.worker.arenas import Arenas
from trtd.worker.validate import ServedModel

pytestmark = pytest.mark.gpu

cuda = pytest.importorskip("trtd.runtime.cuda", reason="no GPU test can run: cuda-bindings are not installed")

ARENA_BYTES = 64 << 20
PAGE_BYTES = 4096
CLIENT_MEMFD = "trtd-arena"
"""What `trtd.client.memory` calls its memfds."""


class Reader:
    """Requests of one model as its worker reads them, each input in a frame or in a client's memory."""

    def __init__(self, runtime, assets, plan, max_batch=64):
        settings = model_settings(assets, plan, max_batch)
        self._runtime = runtime
        self.served = ServedModel(runtime.load(settings), settings)
        self.slot = self.served.model.open_slot()
        self.arenas = Arenas(runtime)
        self.memory = ClientMemory(ARENA_BYTES)
        self.arenas.open(self.memory.key, ARENA_BYTES, self.memory.duplicate())
        self._end = 0

    @property
    def is_pinned(self):
        """Whether the arena is, as the runtime knows."""
        return len(self._runtime._session.pinned) == 1

    def read(self, inputs, in_arena=True):
        """One request; shared memory is used from its start again when its end is reached."""
        specs, frames = [], []
        dtypes = {contract.name: contract.dtype for contract in self.served.description.inputs}
        for name, array in inputs.items():
            place = Place.ARENA if in_arena else Place.FRAME
            specs.append(TensorSpec(name, dtypes[name], array.shape, place))
            frames.append(self._write(array) if in_arena else to_frame(array))
        return self.served.plan(tuple(specs)).read(frames, self.arenas)

    def _write(self, array):
        if self._end + array.nbytes > ARENA_BYTES:
            self._end = 0
        frame = self.memory.write(array, self._end)
        self._end += -(-array.nbytes // PAGE_BYTES) * PAGE_BYTES
        return frame

    def close(self):
        """The client dies: its descriptor is gone, and the router closes its arena."""
        self.memory.__exit__()
        self.arenas.clear()


@pytest.fixture
def open_reader(open_tensorrt, assets):
    """Opens readers, and sees to it that nothing stays mapped or pinned."""
    opened = []

    def open_one(plan, max_batch=64, **fields):
        runtime = open_tensorrt(**fields)
        opened.append((Reader(runtime, assets, plan, max_batch), runtime))
        return opened[-1][0]

    yield open_one
    for reader, runtime in opened:
        reader.close()
        gc.collect()
        wait_until(lambda: mapped_count() == 0, "the end of the mapping")
        assert len(runtime._session.pinned) == 0


@pytest.fixture
def sources(monkeypatch):
    """Where each copy to the device comes from, and how long it is."""
    seen = []
    original = cuda.copy_to_device

    def copy(device_address, host_address, size_bytes, stream):
        seen.append((host_address, size_bytes))
        original(device_address, host_address, size_bytes, stream)

    monkeypatch.setattr(cuda, "copy_to_device", copy)
    return seen


@pytest.mark.parametrize("max_graphs", GRAPHS)
@pytest.mark.parametrize("plan", PLANS)
def test_every_case_is_right_from_shared_memory(open_reader, assets, plan, max_graphs):
    """Each plan answers inputs in an arena as its reference does, as often as they come."""
    reader = open_reader(plan, max_graphs=max_graphs)
    for _ in range(3):
        for case in CASES:
            inputs, outputs = reference(assets, plan, case)
            check(plan, reader.slot.run([reader.read(inputs)])[0], outputs)


@pytest.mark.parametrize("plan", ["mlp.plain", "squeezenet_fp16.plain", "resnet50_fp16.vc"])
def test_frames_and_arenas_share_a_batch(open_reader, assets, plan):
    """Whatever of a batch lies in shared memory, in whatever order, each request gets its own rows."""
    reader = open_reader(plan)
    cases = [reference(assets, plan, case) for case in ("one", "three")]
    for pattern in range(16):
        batch = [(cases[number % 2], bool(pattern >> number & 1)) for number in range(4)]
        got = reader.slot.run([reader.read(inputs, in_arena) for (inputs, _), in_arena in batch])
        for answer, ((_, outputs), _) in zip(got, batch, strict=True):
            check(plan, answer, outputs)


def test_large_inputs_are_copied_from_where_they_lie(open_reader, assets, sources):
    """An image in an arena is one copy from the arena; one in a frame, and anything small, comes from the staging."""
    reader = open_reader("resnet50_fp16.vc")
    inputs, _ = reference(assets, "resnet50_fp16", "three")
    (image,) = inputs.values()
    assert image.nbytes >= MIN_DIRECT_BYTES
    arena = reader.arenas._arenas[reader.memory.key]
    wait_until(lambda: reader.is_pinned, "the pinned arena")
    for in_arena in (True, False):
        request = reader.read(inputs, in_arena)
        sources.clear()
        reader.slot.run([request])
        from_arena = [size for at, size in sources if arena.address <= at < arena.address + ARENA_BYTES]
        assert from_arena == ([image.nbytes] if in_arena else [])


def test_requests_outlive_their_client(open_reader, assets):
    """A request whose client is gone, and whose arena is closed, still reads the memory that it named."""
    reader = open_reader("resnet50_fp16.vc")
    inputs, outputs = reference(assets, "resnet50_fp16", "three")
    request = reader.read(inputs)
    reader.arenas.close(reader.memory.key)
    assert mapped_count() == 1
    check("resnet50_fp16", reader.slot.run([request])[0], outputs)
    del request
    wait_until(lambda: mapped_count() == 0, "the end of the mapping")


def test_memory_that_cannot_be_pinned_is_staged(open_reader, assets, sources, monkeypatch):
    """A refusal of the driver changes nothing but the way: the answer is right, from the staging."""

    def refuse(address, size_bytes):
        raise cuda.CudaError(2, "cudaHostRegister")

    monkeypatch.setattr(cuda, "pin", refuse)
    reader = open_reader("resnet50_fp16.vc")
    inputs, outputs = reference(assets, "resnet50_fp16", "three")
    arena = reader.arenas._arenas[reader.memory.key]
    sources.clear()
    check("resnet50_fp16", reader.slot.run([reader.read(inputs)])[0], outputs)
    assert sources
    assert not any(arena.address <= at < arena.address + ARENA_BYTES for at, _ in sources)


def test_a_client_that_rewrites_its_input_hurts_nobody_else(open_reader, assets):
    """Noise written over one request's input while its batches run leaves the other answers of the batch right."""
    reader = open_reader("resnet50_fp16.vc")
    inputs, outputs = reference(assets, "resnet50_fp16", "one")
    good, hostile = reader.read(inputs), reader.read(inputs)
    (place,) = (np.frombuffer(frame, np.uint8) for frame in hostile.frames)
    memory = reader.arenas._arenas[reader.memory.key].memory
    start = place.ctypes.data - memory.ctypes.data
    noise = np.random.default_rng(1).integers(0, 256, place.nbytes, np.uint8)
    is_over = threading.Event()

    def rewrite():
        while not is_over.is_set():
            memory[start : start + noise.nbytes] = noise

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(100):
            got = reader.slot.run([good, hostile, good])
            check("resnet50_fp16", got[0], outputs)
            check("resnet50_fp16", got[2], outputs)
    finally:
        is_over.set()
        writer.join()


def test_many_arenas_come_and_go(open_tensorrt):
    """A hundred arenas, pinned and closed again, leave no mapping and no pinned range."""
    runtime = open_tensorrt()
    arenas = Arenas(runtime)
    for key in range(100):
        with ClientMemory(4 << 20, key) as memory:
            arenas.open(key, memory.size_bytes, memory.duplicate())
        if key >= 10:
            arenas.close(key - 10)
    wait_until(lambda: mapped_count() == len(runtime._session.pinned) == 10, "ten pinned arenas")
    arenas.clear()
    wait_until(lambda: mapped_count() == len(runtime._session.pinned) == 0, "the end of all arenas")


def test_to_open_a_large_arena_takes_no_time(open_tensorrt):
    """The loop of a worker opens an arena in a moment, however long the driver takes to pin it."""
    runtime = open_tensorrt()
    arenas = Arenas(runtime)
    with ClientMemory(1 << 30) as memory:
        began_at = time.perf_counter()
        arenas.open(memory.key, memory.size_bytes, memory.duplicate())
        opened_s = time.perf_counter() - began_at
        wait_until(lambda: len(runtime._session.pinned) == 1, "the pinned arena")
        pinned_s = time.perf_counter() - began_at
    arenas.clear()
    wait_until(lambda: mapped_count() == len(runtime._session.pinned) == 0, "the end of the arena")
    print(f"1 GiB: opened in {opened_s * 1e3:.2f} ms, pinned after {pinned_s * 1e3:.1f} ms")
    assert opened_s < pinned_s / 4


def test_clients_of_the_daemon_share_memory(assets):
    """Through the whole daemon, arrays in arenas and large answers are right, and go with their client."""
    models = {"resnet50_fp16": {"path": str(assets / "resnet50_fp16.vc.plan"), "max_batch": 64}}
    with Daemon({"a": {"runtime": "tensorrt", "models": models, "slots": 2}}) as daemon:
        daemon.start()
        daemon.wait_ready()
        inputs, outputs = reference(assets, "resnet50_fp16", "opt")
        (name,) = inputs
        maps = Path(f"/proc/{daemon.worker('a')['pid']}/maps")
        with daemon.client("a", timeout=60) as client:
            shared = client.empty(inputs[name].shape, inputs[name].dtype)
            shared[:] = inputs[name]
            for _ in range(50):
                check("resnet50_fp16", dict(client.infer("resnet50_fp16", {name: shared}).outputs), outputs)
            assert mapped_count(CLIENT_MEMFD, maps) > 0
        wait_until(lambda: mapped_count(CLIENT_MEMFD, maps) == 0, "the end of the client's arenas")
        daemon.stop()
