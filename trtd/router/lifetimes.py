"""The end of arenas: noticed when their last user lets go of the object, carried out by the router's loop."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from trtd.core.arenas import Arena, ArenaBook
from trtd.router.memfds import Closer

MAX_ENDED = 64
"""Arenas whose end is carried out in one turn of the router's loop; a client that dies may leave as many."""


class _Ended(NamedTuple):
    book: ArenaBook
    key: int
    size_bytes: int
    fd: int


class Lifetimes:
    """Ends each arena once: its bytes leave the accounts, workers are told, and its descriptor is closed.

    An arena can lose its last user in the middle of anything, so that moment only makes a note.

    Args:
        tell_workers: called with the key of an arena that has ended; the worker has the last word of requests by then.

    Attributes:
        fd: readable when `sweep` has something to do.
    """

    def __init__(self, tell_workers: Callable[[int], None]) -> None:
        self._tell_workers = tell_workers
        self._ended: deque[_Ended] = deque()
        self._closer = Closer()
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def follow(self, arena: Arena, book: ArenaBook) -> None:
        """Note the arena's end when it comes."""
        end = weakref.finalize(arena, self._note, _Ended(book, arena.key, arena.size_bytes, arena.fd))
        end.atexit = False

    def _note(self, ended: _Ended) -> None:
        self._ended.append(ended)
        if self.fd >= 0:
            os.eventfd_write(self.fd, 1)

    def sweep(self) -> None:
        """Carry out what was noted, as far as one turn of the loop goes; nothing where nothing was."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        for _ in range(min(len(self._ended), MAX_ENDED)):
            book, key, size_bytes, fd = self._ended.popleft()
            book.end(size_bytes)
            self._closer.take(fd)
            self._tell_workers(key)
        if self._ended:
            os.eventfd_write(self.fd, 1)

    def close_soon(self, fd: int) -> None:
        """Close the descriptor of memory that did not become an arena."""
        self._closer.take(fd)

    def close(self) -> None:
        """Note further ends no more; the process is about to leave, and the kernel closes the rest."""
        os.close(self.fd)
        self.fd = -1
        self._closer.stop()
