"""Shared memory between a router's end and a worker over the real stream: opened, used, closed, opened again."""

from __future__ import annotations

import os
import threading
import time
from functools import partial

import numpy as np
import pytest

from tests.support.memory import ClientMemory, mapped_count, open_fds
from tests.support.router_end import RouterEnd
from tests.support.worker import make_model_settings, write_script
from tests.support.worker_end import router_and_worker
from trtd.demo import models
from trtd.errors import ErrorCode
from trtd.wire.arenas import ArenaRef
from trtd.wire.batches import encode_arena_message
from trtd.wire.messages import ArenaOpened

COLUMNS = 32 * 1024
INPUT_BYTES = 4 * COLUMNS
AREA = (INPUT_BYTES * 4, INPUT_BYTES * 2)


@pytest.fixture
def start(tmp_path):
    """Start a router's end and a worker's end with a model; both are gone afterwards, and nothing is left mapped."""
    yield partial(router_and_worker, f"{tmp_path}/workers.sock")
    assert mapped_count() == 0


@pytest.fixture
def memory():
    """Shared memory of a client."""
    with ClientMemory() as memory:
        yield memory


@pytest.fixture(params=["onnxruntime", "scripted"])
def model(request, tmp_path):
    """The identity of wide rows, in either runtime of the CPU: `runtime` beside the settings of the model."""
    if request.param == "scripted":
        inputs = [{"name": "x", "dtype": "float32", "shape": [None, COLUMNS]}]
        path = write_script(tmp_path / "m.json", inputs=inputs)
    else:
        path = tmp_path / "m.onnx"
        path.write_bytes(models.identity(dims=(COLUMNS,)))
    return make_model_settings(path), request.param


def wide(value: float, items: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.arange(items * COLUMNS, dtype=np.float32).reshape(items, COLUMNS) + value}


def output_in(memory: ClientMemory, ref: ArenaRef, items: int = 1) -> np.ndarray:
    assert isinstance(ref, ArenaRef)
    assert ref.key == memory.key
    return memory.read(ref.offset, (items, COLUMNS))


def wait_unmapped(count: int = 0) -> None:
    """Until the worker's threads have let go of the last arena."""
    ends_at = time.monotonic() + 20
    while mapped_count() > count:
        assert time.monotonic() < ends_at, f"{mapped_count()} arenas are mapped"
        time.sleep(0.005)


@pytest.mark.parametrize("slots", [1, 3])
def test_requests_read_and_write_shared_memory(start, model, memory, slots):
    """Inputs come from the arena and outputs go into the area, again and again, in a batch and alone."""
    settings, runtime = model
    with start(settings, runtime=runtime, slots=slots) as (router, _):
        router.open_arena(memory)
        for number in range(10):
            leased = router.lease_shared(memory, wide(number), AREA)
            router.send(leased)
            got = router.results(1)[leased.entry.lease]
            assert got.code is None
            assert got.outputs["y"].offset == AREA[0]
            np.testing.assert_array_equal(output_in(memory, got.outputs["y"]), wide(number)["x"])
        shared = router.lease_shared(memory, wide(100), AREA)
        framed = router.lease(wide(200, items=2))
        without_area = router.lease_shared(memory, wide(300), at=INPUT_BYTES)
        router.send(shared, framed, without_area)
        results = router.results(3)
        np.testing.assert_array_equal(output_in(memory, results[shared.entry.lease].outputs["y"]), wide(100)["x"])
        np.testing.assert_array_equal(results[framed.entry.lease].outputs["y"], wide(200, items=2)["x"])
        np.testing.assert_array_equal(results[without_area.entry.lease].outputs["y"], wide(300)["x"])


def test_an_unknown_arena_is_a_typed_error_and_the_worker_goes_on(start, model, memory):
    """Memory that is not open, closed, or cannot be mapped is `arena_unknown`, so that the client sends frames."""
    settings, runtime = model

    def ask() -> str | None:
        leased = router.lease_shared(memory, wide(1), AREA)
        router.send(leased)
        return router.results(1)[leased.entry.lease].code

    with start(settings, runtime=runtime) as (router, _):
        assert ask() == ErrorCode.ARENA_UNKNOWN
        router.open_arena(memory)
        assert ask() is None
        router.close_arena(memory.key)
        assert ask() == ErrorCode.ARENA_UNKNOWN
        wait_unmapped()
        fd = memory.duplicate()
        router._worker.send([encode_arena_message(ArenaOpened(memory.key, 4096))], [fd])
        os.close(fd)
        assert ask() == ErrorCode.ARENA_UNKNOWN
        assert router.ask(wide(2)).code is None


def test_a_new_router_begins_without_arenas(tmp_path, model, memory):
    """What a former router handed over is let go of with its connection; the next one hands it over again."""
    settings, runtime = model
    address = f"{tmp_path}/workers.sock"
    with router_and_worker(address, settings, runtime=runtime) as (first, _):
        first.open_arena(memory)
        leased = first.lease_shared(memory, wide(1), AREA)
        first.send(leased)
        assert first.results(1)[leased.entry.lease].code is None
        first.close()
        with RouterEnd(address) as second:
            second.attached()
            wait_unmapped()
            leased = second.lease_shared(memory, wide(2), AREA)
            second.send(leased)
            assert second.results(1)[leased.entry.lease].code == ErrorCode.ARENA_UNKNOWN
            second.open_arena(memory)
            leased = second.lease_shared(memory, wide(3), AREA)
            second.send(leased)
            got = second.results(1)[leased.entry.lease]
            np.testing.assert_array_equal(output_in(memory, got.outputs["y"]), wide(3)["x"])
    assert mapped_count() == 0


def test_an_arena_outlives_its_closing_under_a_request(start, tmp_path, memory):
    """A request that runs keeps the memory that it reads; nothing is written there any more."""
    inputs = [{"name": "x", "dtype": "float32", "shape": [None, COLUMNS]}]
    slow = write_script(tmp_path / "m.json", inputs=inputs, behaviour="sleep", seconds=0.3)
    with start(make_model_settings(slow)) as (router, worker):
        router.open_arena(memory)
        leased = router.lease_shared(memory, wide(1), AREA)
        router.send(leased)
        ends_at = time.monotonic() + 20
        while worker.loop.progress.read()[1] == 0:
            assert time.monotonic() < ends_at
            time.sleep(0.001)
        worker.loop._arenas.close(memory.key)
        assert mapped_count() == 1
        got = router.results(1)[leased.entry.lease]
        np.testing.assert_array_equal(got.outputs["y"], wide(1)["x"])
        assert not memory.read(AREA[0], (AREA[1],), np.uint8).any()
        wait_unmapped()


def test_a_client_that_goes_on_writing_hurts_only_its_own_answers(start, model, memory):
    """While one client rewrites its input, area and all, every answer of the other client's is right."""
    settings, runtime = model
    is_over = threading.Event()
    with ClientMemory(key=8) as hostile, start(settings, runtime=runtime, slots=2) as (router, _):
        router.open_arena(memory)
        router.open_arena(hostile)

        def rewrite() -> None:
            noise = np.random.default_rng(1)
            while not is_over.is_set():
                os.pwrite(hostile.fd, noise.bytes(hostile.size_bytes), 0)

        writer = threading.Thread(target=rewrite)
        writer.start()
        try:
            for number in range(60):
                good = router.lease_shared(memory, wide(number), AREA)
                bad = router.lease_shared(hostile, wide(number), AREA)
                router.send(good, bad)
                results = router.results(2)
                assert {one.code for one in results.values()} == {None}
                output = output_in(memory, results[good.entry.lease].outputs["y"])
                np.testing.assert_array_equal(output, wide(number)["x"])
        finally:
            is_over.set()
            writer.join()


def test_a_thousand_arenas_leave_nothing_behind(start, model):
    """After a thousand arenas, opened, used and closed, no mapping and no descriptor is left."""
    settings, runtime = model
    with start(settings, runtime=runtime) as (router, _):
        router.ask(wide(1))
        before = open_fds()
        for key in range(1000):
            with ClientMemory(2 * INPUT_BYTES, key) as memory:
                router.open_arena(memory)
                if key % 50 == 0:
                    leased = router.lease_shared(memory, wide(key), (INPUT_BYTES, INPUT_BYTES))
                    router.send(leased)
                    got = router.results(1)[leased.entry.lease]
                    np.testing.assert_array_equal(output_in(memory, got.outputs["y"]), wide(key)["x"])
                router.close_arena(key)
        # Its answer shows that the worker has read all of that.
        router.ask(wide(2))
        wait_unmapped()
        assert open_fds() <= before
