"""Descriptors of clients are closed beside the loop, and an arena's end is carried out by it."""

from __future__ import annotations

import os
import select
import threading

import pytest

from tests.support.arenas import PAGE_BYTES, SEALS, closing, make_memfd
from trtd.core.arenas import Arena, ArenaBook
from trtd.router.lifetimes import MAX_ENDED, Lifetimes
from trtd.router.memfds import Closer, check_memfd, is_memory

PATIENCE_S = 10.0


def test_closing_keeps_nobody_waiting():
    """A close that takes for ever holds up its thread alone, and what waits behind it is counted."""
    has_begun, may_end = threading.Event(), threading.Event()
    closed: list[int] = []

    def close(fd: int) -> None:
        has_begun.set()
        may_end.wait(PATIENCE_S)
        closed.append(fd)
        if fd == 2:
            raise OSError("a file system's own trouble")

    closer = Closer(close)
    for fd in (1, 2, 3):
        closer.take(fd)
    assert has_begun.wait(PATIENCE_S)
    assert (closer.waiting, closed) == (3, [])
    may_end.set()
    closer.stop()
    for thread in threading.enumerate():
        if thread.name == "closer":
            thread.join(PATIENCE_S)
    assert (closer.waiting, closed) == (0, [1, 2, 3])


def test_kinds_of_descriptors():
    """Only memory that can have seals counts as memory, and a proper memfd passes."""
    reader, writer = os.pipe()
    with closing(make_memfd(), make_memfd(seals=0), reader, writer) as (sealed, unsealed, *ends):
        assert is_memory(sealed)
        assert is_memory(unsealed)
        assert not any(is_memory(fd) for fd in ends)
        check_memfd(sealed, PAGE_BYTES)
    assert not is_memory(sealed)


def test_an_arena_ends_in_the_turn_of_the_loop():
    """Letting go of an arena notes its end; the sweep counts it out, tells workers and closes the descriptor."""
    told: list[int] = []
    lifetimes = Lifetimes(told.append)
    book = ArenaBook(4 * PAGE_BYTES)
    fd = make_memfd(seals=SEALS)
    poller = select.poll()
    poller.register(lifetimes.fd, select.POLLIN)
    arena = Arena(7, PAGE_BYTES, "ann", fd)
    lifetimes.follow(arena, book)
    book.add(arena)
    book.withdraw(7)
    assert not poller.poll(0)
    del arena
    assert poller.poll(0)
    assert (told, book.count, os.fstat(fd).st_size) == ([], 1, PAGE_BYTES)
    lifetimes.sweep()
    assert (told, book.count, book.held_bytes) == ([7], 0, 0)
    assert not poller.poll(0)
    lifetimes.close()
    for thread in threading.enumerate():
        if thread.name == "closer":
            thread.join(PATIENCE_S)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_many_arenas_end_over_several_turns():
    """A client that leaves very many does not hold up the loop: what one turn leaves undone, the next ones do."""
    told: list[int] = []
    lifetimes = Lifetimes(told.append)
    book = ArenaBook(PAGE_BYTES)
    for key in range(2 * MAX_ENDED + 1):
        lifetimes.follow(Arena(key, 1, "ann", os.dup(0)), book)
    turns = []
    while select.select([lifetimes.fd], [], [], 0)[0]:
        lifetimes.sweep()
        turns.append(len(told))
    assert turns == [MAX_ENDED, 2 * MAX_ENDED, 2 * MAX_ENDED + 1]
    lifetimes.close()


def test_an_arena_that_outlives_the_loop_ends_in_silence():
    """After the close an end is noted nowhere: the process is leaving."""
    lifetimes = Lifetimes(lambda key: pytest.fail(f"told of {key}"))
    book = ArenaBook(PAGE_BYTES)
    with closing(make_memfd()) as (fd,):
        arena = Arena(7, PAGE_BYTES, "ann", fd)
        lifetimes.follow(arena, book)
        lifetimes.close()
        del arena
