"""Shared memory of the client against a router whose every answer the test decides."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.client_arenas import StandInArenas
from tests.support.client_router import WAIT_S, Received, StandInRouter
from tests.support.leaks import count_descriptors, count_mappings
from trtd.client import Answer, BFloat16, Client, aio, arenas
from trtd.client.arenas import FIRST_ARENA_BYTES
from trtd.client.calls import SHARED_FROM_BYTES
from trtd.errors import DeadlineExceeded, ErrorCode, Usage

LARGE = 512 * 1024


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/a.sock"


@pytest.fixture
def router(address: str) -> Iterator[StandInRouter]:
    with StandInRouter(address) as router:
        router.take_arenas()
        yield router


@pytest.fixture
def shared(router: StandInRouter) -> StandInArenas:
    assert router.arenas is not None
    return router.arenas


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout=WAIT_S) as client:
        yield client


class Log:
    """Answers every request with its own inputs, and remembers where its tensors were."""

    def __init__(self, router: StandInRouter) -> None:
        self._router = router
        self.received: list[Received] = []
        router.serve(self._answer)

    @property
    def places(self) -> list[list[str]]:
        return [received.places for received in self.received]

    def _answer(self, received: Received) -> None:
        self.received.append(received)
        self._router.answer(received)


@pytest.fixture
def log(router: StandInRouter) -> Log:
    return Log(router)


def large(seed: int = 0, size_bytes: int = LARGE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, size_bytes, np.uint8)


def warm_up(client: Client, log: Log) -> None:
    """Until an arena is there and known to the client, and the size of the outputs is."""
    deadline = time.monotonic() + WAIT_S
    while not log.received or log.places[-1] != ["arena", "area"]:
        assert time.monotonic() < deadline, log.places
        client.infer("m", {"x": large()})
    log.received.clear()


def test_large_tensors_travel_in_shared_memory_once_it_is_there(client, shared, log):
    """The first request goes in frames; once an arena is taken, requests name places, and so do their answers."""
    x = large(1)
    np.testing.assert_array_equal(client.infer("m", {"x": x})["x"], x)
    assert log.places == [["frame"]]
    warm_up(client, log)
    answer = client.infer("m", {"x": x})
    np.testing.assert_array_equal(answer["x"], x)
    assert log.places == [["arena", "area"]]
    assert [taken.offered.size_bytes for taken in shared.taken.values()] == [FIRST_ARENA_BYTES]


def test_small_tensors_stay_in_frames(client, shared, log):
    """Below the threshold nothing changes, also beside a large tensor."""
    warm_up(client, log)
    inputs = {"small": large(1, SHARED_FROM_BYTES - 1), "x": large(), "scalar": np.array(2.5)}
    answer = client.infer("m", inputs)
    assert log.places == [["frame", "arena", "frame"]]
    for name, value in inputs.items():
        np.testing.assert_array_equal(answer[name], value)


def test_every_kind_of_large_array_travels(client, shared, log):
    """Strided, big-endian and bfloat16 arrays arrive as they are, from shared memory."""
    warm_up(client, log)
    count = SHARED_FROM_BYTES
    inputs = {
        "strided": np.arange(4 * count, dtype=np.float32)[::2],
        "big": np.arange(count, dtype=">f8"),
        "bf16": BFloat16(np.arange(count, dtype=np.uint16)),
        "bool": np.arange(count) % 3 == 0,
    }
    for places in (["arena"] * 4, ["arena"] * 4 + ["area"]):
        answer = client.infer("m", inputs)
        assert log.places[-1] == places
        for name, value in inputs.items():
            got = answer[name]
            assert isinstance(got, BFloat16) == isinstance(value, BFloat16)
            bits = value.bits if isinstance(value, BFloat16) else value
            np.testing.assert_array_equal(got.bits if isinstance(got, BFloat16) else got, bits)


def test_an_array_that_lies_there_already_is_not_copied(client, shared, log):
    """What `empty` gave is named where it is, whole and in aligned parts; an odd part is copied."""
    x = client.empty((4, LARGE), np.uint8)
    assert isinstance(x, np.ndarray)
    x[:] = large(3)
    warm_up(client, log)
    client.infer("m", {"x": x})
    for part in (x[1:2], x.reshape(-1)[64:], x.reshape(-1)[1 : 1 + LARGE], x.T):
        np.testing.assert_array_equal(client.infer("m", {"x": part})["x"], part)
    [whole, row, aligned, odd, turned] = [received.tensors[0] for received in log.received]
    offset = int.from_bytes(whole[8:16], "little")
    assert int.from_bytes(row[8:16], "little") == offset + LARGE
    assert int.from_bytes(aligned[8:16], "little") == offset + 64
    assert int.from_bytes(odd[8:16], "little") not in range(offset, offset + 4 * LARGE)
    assert int.from_bytes(turned[8:16], "little") not in range(offset, offset + 4 * LARGE)


def test_an_empty_array_is_an_ordinary_one(client, shared, log):
    """Small ones, and those of a client without shared memory, are made as well; what is no shape is refused."""
    assert client.empty((2, 3)).dtype == np.float32
    assert client.empty(5, "int8").shape == (5,)
    with pytest.raises(Usage, match="at least 0"):
        client.empty((-1, 5))
    with Client("tcp://127.0.0.1:9") as remote:
        array = remote.empty((LARGE,), np.uint8)
        array[:] = 1
        assert array.sum() == LARGE
    with pytest.raises(Usage, match="closed"):
        remote.empty((1,))


def test_memory_comes_back_with_the_last_array(client, shared, log):
    """A thousand requests need no more than the first arena, and an array that is held keeps its place from others."""
    warm_up(client, log)
    held: list[tuple[np.ndarray, Answer]] = []
    for seed in range(200):
        x = large(seed)
        answer = client.infer("m", {"x": x})
        if seed % 40 == 0:
            part = answer["x"].reshape(2, -1)[1]
            del answer
            held.append((x.reshape(2, -1)[1], part))
    for x, part in held:
        np.testing.assert_array_equal(x, part)
    assert len(shared.taken) == 1
    assert log.places == [["arena", "area"]] * 200


def test_answers_that_are_kept_do_not_use_up_the_memory(address, tmp_path):
    """A caller that keeps every answer gets later ones in frames, with room left for inputs."""
    with StandInRouter(address) as router, Client(address, timeout=WAIT_S) as client:
        router.take_arenas(max_arena_bytes=8 * LARGE)
        log = Log(router)
        warm_up(client, log)
        xs = [large(seed) for seed in range(12)]
        answers = [client.infer("m", {"x": x}) for x in xs]
        assert log.places == [["arena", "area"]] * 4 + [["arena"]] * 8
        for x, answer in zip(xs, answers, strict=True):
            np.testing.assert_array_equal(answer["x"], x)
        answers.clear()
        del answer
        client.infer("m", {"x": large()})
        assert log.places[-1] == ["arena", "area"]


def test_arenas_grow_with_the_need(client, shared, log):
    """Many at a time get more arenas, each larger; a tensor larger than any gets one of its own; idle ones go."""
    warm_up(client, log)
    arrays = [client.empty((2 * 2**20,), np.uint8) for _ in range(12)]
    for array in arrays:
        client.infer("m", {"x": array})
    sizes = [taken.offered.size_bytes for taken in shared.taken.values()]
    assert sizes[0] == FIRST_ARENA_BYTES
    assert sizes == sorted(sizes)
    assert sum(sizes) >= 24 * 2**20


def test_idle_arenas_are_withdrawn(client, shared, log, monkeypatch):
    """An arena in which nothing lies for a while is withdrawn when the next one is made."""
    warm_up(client, log)
    monkeypatch.setattr(arenas, "IDLE_S", 0.0)
    array = client.empty((2 * FIRST_ARENA_BYTES,), np.uint8)
    shared.wait(lambda shared: shared.taken[1000].is_withdrawn)
    shared.wait(lambda shared: len(shared.taken) == 2)
    np.testing.assert_array_equal(client.infer("m", {"x": array})["x"], array)


@pytest.mark.parametrize("max_arena_bytes", [0, 4096])
def test_a_router_that_takes_no_arenas(address, max_arena_bytes):
    """Where there is no room for an arena everything travels in frames, and `empty` gives ordinary arrays."""
    with StandInRouter(address) as router, Client(address, timeout=WAIT_S) as client:
        shared = router.take_arenas(max_arena_bytes=max_arena_bytes)
        log = Log(router)
        early = client.empty((LARGE,), np.uint8)
        early[:] = 3
        for array in (early, large(1), client.empty((LARGE,), np.uint8)):
            np.testing.assert_array_equal(client.infer("m", {"x": array})["x"], array)
        assert log.places == [["frame"]] * 3
        assert not shared.taken


def test_refused_arenas(client, shared, log):
    """After a refusal tensors travel in frames, and no offer is made for a while."""
    shared.refuses = ErrorCode.OVERLOADED
    for seed in range(20):
        x = large(seed)
        np.testing.assert_array_equal(client.infer("m", {"x": x})["x"], x)
    assert log.places == [["frame"]] * 20
    assert not shared.taken


def test_an_offer_without_an_answer(client, shared, log):
    """A router that says nothing to an offer costs nothing but the speed, and gets no second one."""
    shared.is_silent = True
    for seed in range(5):
        x = large(seed)
        np.testing.assert_array_equal(client.infer("m", {"x": x})["x"], x)
    assert log.places == [["frame"]] * 5


def test_an_arena_that_the_router_has_forgotten(client, router, shared):
    """A request that names an unknown arena is sent again in frames by itself, and another arena is offered."""
    is_forgetful = False

    def answer(received: Received) -> None:
        if is_forgetful and "arena" in received.places:
            router.refuse(received, ErrorCode.ARENA_UNKNOWN, "no such arena")
        else:
            log.append(received.places)
            router.answer(received)

    log: list[list[str]] = []
    router.serve(answer)
    while not log or log[-1] != ["arena", "area"]:
        client.infer("m", {"x": large()})
    is_forgetful = True
    x = large(1)
    np.testing.assert_array_equal(client.infer("m", {"x": x})["x"], x)
    assert log[-1] == ["frame"]
    shared.wait(lambda shared: shared.taken[1000].is_withdrawn)
    is_forgetful = False
    while log[-1] != ["arena", "area"]:
        np.testing.assert_array_equal(client.infer("m", {"x": x})["x"], x)
    assert set(shared.taken) == {1000, 1001}


def test_a_new_router_is_offered_what_is_safe(address, client):
    """Without requests under way the same arenas are offered again, and arrays in them are named by the new keys."""
    with StandInRouter(address) as router:
        shared = router.take_arenas()
        log = Log(router)
        warm_up(client, log)
        x = client.empty((LARGE,), np.uint8)
        x[:] = large(5)
        epoch = client._arenas.epoch
    with StandInRouter(address) as router:
        shared = router.take_arenas()
        log = Log(router)
        # A place that is named before the client learns of the new router would cost the arena.
        while client._arenas.epoch == epoch:
            client.infer("m", {"x": np.zeros(1)})
        while not log.received or log.places[-1] != ["arena", "area"]:
            np.testing.assert_array_equal(client.infer("m", {"x": x})["x"], x)
        assert [taken.offered.number for taken in shared.taken.values()] == [0]


def test_areas_under_way_are_lost_with_the_router(address, client):
    """With a request under way its arena is replaced; its answer, sent again in frames, is right all the same."""
    x = large(5)
    with StandInRouter(address) as router:
        shared = router.take_arenas()
        while True:
            handle = client.submit("m", {"x": x})
            received = router.receive()
            if received.places == ["arena", "area"]:
                break
            router.answer(received)
            handle.result()
    with StandInRouter(address) as router:
        shared = router.take_arenas()
        log = Log(router)
        np.testing.assert_array_equal(handle.result()["x"], x)
        assert log.places == [["frame"]]
        while log.places[-1] != ["arena", "area"]:
            np.testing.assert_array_equal(client.infer("m", {"x": x})["x"], x)
        assert [taken.offered.number for taken in shared.taken.values()] == [1]


def test_a_deadline_takes_the_area_along(client, router, shared):
    """The area of a request whose deadline passed is not used again, and after a few of them its arena is replaced."""
    areas: list[tuple[int, int]] = []

    def answer(received: Received) -> None:
        if received.area is None:
            router.answer(received)
            return
        areas.append((received.area.key, received.area.offset))
        router.refuse(received, ErrorCode.DEADLINE_EXCEEDED, "late")

    router.serve(answer)
    for _ in range(60):
        if len(areas) == 20:
            break
        with contextlib.suppress(DeadlineExceeded):
            client.infer("m", {"x": large()})
    assert len(set(areas)) == len(areas) == 20
    assert len({key for key, _ in areas}) > 1
    shared.wait(lambda shared: shared.taken[1000].is_withdrawn)


def test_the_connection_for_arenas_alone_is_lost(client, shared, log, monkeypatch):
    """When only that connection ends, requests go on in frames, and arenas are offered anew after a pause."""
    warm_up(client, log)
    shared.hang_up()
    client._arenas.attend(0.0)
    shared.wait(lambda _: client._arenas.find(0, 1) is None)
    x = large(2)
    monkeypatch.setattr(arenas, "PAUSE_S", 0.0)
    while shared.connections < 2 or log.places[-1] != ["arena", "area"]:
        np.testing.assert_array_equal(client.infer("m", {"x": x})["x"], x)
    assert "frame" in [places[0] for places in log.places] or shared.connections == 2


def test_arrays_outlive_the_client(address, router, shared, log):
    """What was handed out stays readable after the client is closed, and goes with the last array."""
    gc.collect()
    mappings, descriptors = count_mappings("trtd-arena"), count_descriptors()
    with Client(address, timeout=WAIT_S) as client:
        warm_up(client, log)
        x = large(7)
        answer = client.infer("m", {"x": x})
        mine = client.empty((LARGE,), np.uint8)
        mine[:] = x
    router.close()
    np.testing.assert_array_equal(answer["x"], x)
    np.testing.assert_array_equal(mine, x)
    assert count_mappings("trtd-arena") == mappings + 1
    del answer, mine
    gc.collect()
    assert count_mappings("trtd-arena") == mappings
    assert count_descriptors() <= descriptors


def test_nothing_is_left_behind(address, router, shared, log):
    """Clients that come, use shared memory and go leave no descriptor, no mapping and no memfd."""

    def use() -> None:
        with Client(address, timeout=WAIT_S) as client:
            warm_up(client, log)

    use()
    shared.wait(lambda shared: not shared._clients)
    before = count_descriptors(), count_mappings("trtd-arena")
    for _ in range(5):
        use()
    shared.wait(lambda shared: not shared._clients)
    # The router's side of this test maps each arena as well.
    assert count_mappings("trtd-arena") == before[1] + 5
    assert count_descriptors() == before[0] + 5


def test_a_child_of_a_fork_takes_nothing_back(address):
    """Arrays that die in a forked child give nothing back in the parent, and the client there goes on."""
    program = f"""
import os, sys
import numpy as np
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.support.client_router import StandInRouter
from trtd.client import Client
with StandInRouter({address!r}) as router, Client({address!r}) as client:
    router.take_arenas()
    router.serve(router.answer)
    x = client.empty((100_000,), np.uint8)
    x[:] = 7
    client.infer("m", {{"x": x}})
    child = os.fork()
    if child == 0:
        del x
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for _ in range(20):
        assert (client.infer("m", {{"x": x}})["x"] == 7).all()
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_the_asyncio_client_has_it_all(address, router, shared, log):
    """The asyncio client places large tensors likewise, from `empty` without a copy."""

    async def talk() -> None:
        async with aio.Client(address, timeout=WAIT_S) as client:
            x = client.empty((LARGE,), np.uint8)
            x[:] = large(4)
            while not log.received or log.places[-1] != ["arena", "area"]:
                answer = await client.infer("m", {"x": x})
                np.testing.assert_array_equal(answer["x"], x)
            answers = await asyncio.gather(*[client.infer("m", {"x": large(seed)}) for seed in range(6)])
            for seed, answer in enumerate(answers):
                np.testing.assert_array_equal(answer["x"], large(seed))

    asyncio.run(talk())
    assert log.places[-6:] == [["arena", "area"]] * 6


def test_the_descriptor_is_sealed(client, shared, log):
    """What is offered can neither grow nor shrink, and is written in the open."""
    warm_up(client, log)
    [arena] = client._arenas._arenas
    for size in (0, FIRST_ARENA_BYTES * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fd, size)
