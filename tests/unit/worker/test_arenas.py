"""Shared memory of clients in a worker: mapped, found by its key, and gone with its last user."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from tests.support.memory import ClientMemory, mapped_count, open_fds
from trtd.errors import ArenaUnknown, Malformed
from trtd.wire.arenas import ArenaRef


class PinningRuntime:
    """Notes what is pinned, and that it is still mapped when it is unpinned."""

    def __init__(self) -> None:
        self.pinned: list[int] = []
        self.is_late = False
        self.unmap: Callable[[], None] = lambda: None

    def pin(self, memory: np.ndarray) -> None:
        self.pinned.append(memory.ctypes.data)

    def unpin(self, memory: np.ndarray, then: Callable[[], None]) -> None:
        assert mapped_count() > 0
        self.pinned.remove(memory.ctypes.data)
        self.unmap = then
        if not self.is_late:
            then()


@pytest.fixture
def runtime():
    """Nothing may be pinned any more after the test."""
    runtime = PinningRuntime()
    yield runtime
    assert runtime.pinned == []


def test_what_the_client_writes_is_what_is_read(arenas, memory):
    """A view shows the client's bytes, and what is written into an arena the client sees."""
    sent = np.arange(1000, dtype=np.float32)
    memory.write(sent, 4096)
    arena = arenas.find(ArenaRef(memory.key, 4096, sent.nbytes))
    np.testing.assert_array_equal(np.frombuffer(arena.view(4096, sent.nbytes), np.float32), sent)
    arena.memory[8192:8196] = np.frombuffer(np.float32(3).tobytes(), np.uint8)
    assert memory.read(8192, (1,))[0] == 3


def test_views_cannot_be_written_to(arenas, memory):
    """Inputs are read only: no runtime changes what belongs to the client."""
    view = arenas.find(ArenaRef(memory.key, 0, 64)).view(0, 64)
    with pytest.raises(TypeError):
        view[0] = 1


def test_an_arena_lives_as_long_as_something_refers_to_it(arenas, runtime, memory):
    """A closed arena stays mapped and pinned under the last view on it, and not a moment longer."""
    memory.write(np.ones(4, np.float32))
    array = np.frombuffer(arenas.find(ArenaRef(memory.key, 0, 16)).view(0, 16), np.float32).reshape(2, 2)[1:]
    arenas.close(memory.key)
    assert mapped_count() == 1
    assert len(runtime.pinned) == 1
    np.testing.assert_array_equal(array, [[1, 1]])
    del array
    assert mapped_count() == 0
    assert runtime.pinned == []


def test_an_arena_is_unmapped_when_the_runtime_lets_go(arenas, runtime, memory):
    """A runtime that takes its time to unpin keeps the memory mapped until it is done."""
    runtime.is_late = True
    arenas.close(memory.key)
    assert mapped_count() == 1
    runtime.unmap()
    assert mapped_count() == 0


def test_a_closed_arena_is_not_found_and_says_that_it_is_closed(arenas, memory):
    """After close, its key is unknown, and who still holds the arena can tell."""
    arena = arenas.find(ArenaRef(memory.key, 0, 64))
    arenas.close(memory.key)
    arenas.close(memory.key)
    assert not arena.is_open
    with pytest.raises(ArenaUnknown):
        arenas.find(ArenaRef(memory.key, 0, 64))


@pytest.mark.parametrize(
    ("offset", "size"), [(0, (1 << 20) + 1), (1 << 20, 1), (64, 1 << 20), (0, 2**64 - 1), (2**64 - 64, 64)]
)
def test_ranges_beyond_an_arena_are_malformed(arenas, memory, offset, size):
    """No reference reaches over the end of its arena, however large its numbers are."""
    with pytest.raises(Malformed, match="ends at"):
        arenas.find(ArenaRef(memory.key, offset, size))


@pytest.mark.parametrize(("offset", "size"), [(0, 1 << 20), (1 << 20, 0), ((1 << 20) - 64, 64)])
def test_ranges_up_to_the_end_are_taken(arenas, memory, offset, size):
    """The last byte of an arena can be used, and a place may be empty."""
    arenas.find(ArenaRef(memory.key, offset, size))


def test_many_arenas_come_and_go(arenas, runtime):
    """With 20 arenas opened, cleared, and opened again under the same keys, each key names the newest one."""
    for round_number in range(3):
        for key in range(100, 120):
            with ClientMemory(4096, key) as memory:
                memory.write(np.full(4, key + round_number, np.float32))
                arenas.open(key, 4096, memory.duplicate())
        assert mapped_count() == len(arenas) == 21
        assert len(runtime.pinned) == 21
        for key in range(100, 120):
            view = arenas.find(ArenaRef(key, 0, 4)).view(0, 4)
            assert np.frombuffer(view, np.float32)[0] == key + round_number
            del view
    arenas.clear()
    assert mapped_count() == 0


def test_an_arena_that_is_opened_again_is_another_one(arenas, memory):
    """Who holds the former arena of a key learns that it is closed."""
    former = arenas.find(ArenaRef(memory.key, 0, 64))
    arenas.open(memory.key, memory.size_bytes, memory.duplicate())
    assert not former.is_open
    assert arenas.find(ArenaRef(memory.key, 0, 64)).is_open


def test_no_descriptor_is_kept(arenas, memory):
    """The descriptor that came is closed, whether it could be mapped or not, and a mapping needs none."""
    before = open_fds()
    for key, size in enumerate((memory.size_bytes, 4096, memory.size_bytes)):
        arenas.open(100 + key, size, memory.duplicate())
    assert len(arenas) == 3
    assert open_fds() == before


def test_what_cannot_be_mapped_fails_the_requests_that_name_it(arenas, memory):
    """Another size and a descriptor that cannot be mapped are a typed error that says why, until the key is closed."""
    other = memory.key + 1
    arenas.open(other, 4096, memory.duplicate())
    with pytest.raises(ArenaUnknown, match=r"could not map it: it has 1048576 bytes, not 4096"):
        arenas.find(ArenaRef(other, 0, 64))
    arenas.close(other)
    with pytest.raises(ArenaUnknown, match=r"no such shared memory$"):
        arenas.find(ArenaRef(other, 0, 64))
    arenas.open(other, 4096, memory.duplicate())
    arenas.clear()
    with pytest.raises(ArenaUnknown, match=r"no such shared memory$"):
        arenas.find(ArenaRef(other, 0, 64))
    reader, writer = os.pipe()
    os.close(writer)
    arenas.open(other, 0, reader)
    with pytest.raises(ArenaUnknown, match="could not map it"):
        arenas.find(ArenaRef(other, 0, 0))
