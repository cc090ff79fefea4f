"""Descriptors that came from clients: what one has to be to serve as an arena, and how they are closed.

Nothing here waits for a client. A descriptor may be of any kind, also of a file system that a client runs itself
(FUSE), where fstat(2) and close(2) wait for as long as it likes; asking for seals is answered by the kernel alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import stat
import threading
from collections.abc import Callable
from queue import SimpleQueue

from trtd.errors import Malformed

PAGE_BYTES = resource.getpagesize()

F_SEAL_FUTURE_WRITE = 0x10
"""Not in Python's fcntl."""
WANTED_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
UNWANTED_SEALS = fcntl.F_SEAL_WRITE | F_SEAL_FUTURE_WRITE


def is_memory(fd: int) -> bool:
    """Whether a descriptor is of memory that can have seals; every other one must be closed beside the loop."""
    return _seals(fd) is not None


def check_memfd(fd: int, size_bytes: int) -> None:
    """Check that a descriptor is a memfd whose size cannot change, open for reading and writing.

    Args:
        fd: the descriptor.
        size_bytes: what its sender says that it has.

    Raises:
        Malformed: it is not; the line says what is wrong.
    """
    seals = _seals(fd)
    if seals is None:
        raise Malformed("the descriptor is no memfd")
    if seals & WANTED_SEALS != WANTED_SEALS:
        raise Malformed("the memfd is not sealed against shrinking, growing and further seals")
    if seals & UNWANTED_SEALS:
        raise Malformed("the memfd is sealed against writing, so that no answer could be written to it")
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
        raise Malformed("the descriptor is not open for reading and writing")
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or os.fstatvfs(fd).f_bsize != PAGE_BYTES:
        raise Malformed(f"the memfd is not of ordinary pages of {PAGE_BYTES} bytes")
    if status.st_size != size_bytes:
        raise Malformed(f"the memfd has {status.st_size} bytes, the packet says {size_bytes}")
    if not size_bytes or size_bytes % PAGE_BYTES:
        raise Malformed(f"the memfd has {size_bytes} bytes, expected a multiple of the page size {PAGE_BYTES}")


def _seals(fd: int) -> int | None:
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return None


class Closer:
    """Closes descriptors in a thread of its own, which starts with the first one.

    close(2) of the last descriptor of large memory takes as long as freeing its pages, and that of a strange file as
    long as its file system likes.

    Args:
        close: closes a descriptor.
    """

    def __init__(self, close: Callable[[int], None] = os.close) -> None:
        self._close = close
        self._queue: SimpleQueue[int | None] = SimpleQueue()
        self._has_started = False
        # One writer each: the caller, and the thread.
        self._taken = 0
        self._closed = 0

    @property
    def waiting(self) -> int:
        """How many descriptors are not closed yet."""
        return self._taken - self._closed

    def take(self, fd: int) -> None:
        """Close a descriptor some time soon."""
        if not self._has_started:
            self._has_started = True
            threading.Thread(target=self._work, name="closer", daemon=True).start()
        self._taken += 1
        self._queue.put(fd)

    def stop(self) -> None:
        """Let the thread end when it has closed all it was given."""
        self._queue.put(None)

    def _work(self) -> None:
        while (fd := self._queue.get()) is not None:
            # Whatever the file's own system says about its end: the descriptor is gone.
            with contextlib.suppress(OSError):
                self._close(fd)
            self._closed += 1
