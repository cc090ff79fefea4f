"""Files that others name: only regular ones are opened, no more is read than was agreed, and it can be told who hangs.

A FIFO would keep its reader for ever, a device may do something when it is opened, /dev/zero has no end; so the kind is
looked at before and after a file is opened. A file on a network that is away can still keep its reader: whoever may not
wait reads in a thread that may be left behind, and `waiting_for` says what that thread is at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from typing import BinaryIO

_KINDS = {
    stat.S_IFDIR: "is a directory",
    stat.S_IFIFO: "is a named pipe",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}
_at: dict[int, str] = {}


class NotRegular(OSError):
    """A directory, FIFO, socket or device, where a file is wanted."""

    def __init__(self, path: str, mode: int) -> None:
        kind = _KINDS.get(stat.S_IFMT(mode), "is no file")
        super().__init__(errno.EINVAL, kind, path)


class TooLong(OSError):
    """A file with more bytes than are read of one of its kind."""

    def __init__(self, path: str, most_bytes: int) -> None:
        super().__init__(errno.EFBIG, f"has more than {most_bytes} bytes", path)


@contextlib.contextmanager
def under_way(what: str) -> Iterator[None]:
    """Note what this thread is at, for as long as it is."""
    thread = threading.get_ident()
    before = _at.get(thread)
    _at[thread] = what
    try:
        yield
    finally:
        if before is None:
            del _at[thread]
        else:
            _at[thread] = before


def waiting_for(thread: int | None) -> str:
    """What a thread is at, in words; empty where it said nothing."""
    return "" if thread is None else _at.get(thread, "")


def look_at(path: str) -> os.stat_result:
    """What is at a path.

    Raises:
        OSError, ValueError: nothing that this user can see.
    """
    with under_way(path):
        return os.stat(path)  # noqa: PTH116 - pathlib would say the same more slowly


def open_regular(path: str) -> BinaryIO:
    """A regular file for reading; it is opened without waiting.

    Raises:
        NotRegular: it is something else.
        OSError, ValueError: it cannot be opened.
    """
    with under_way(path):
        _check_mode(path, os.stat(path).st_mode)  # noqa: PTH116
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            # It may be another one by now.
            _check_mode(path, os.fstat(fd).st_mode)
        except BaseException:
            os.close(fd)
            raise
        return os.fdopen(fd, "rb")


def read_regular(path: str, most_bytes: int) -> bytes:
    """All of a regular file.

    Raises:
        NotRegular: it is something else.
        TooLong: it has more than `most_bytes`.
        OSError, ValueError: it cannot be read.
    """
    with under_way(path), open_regular(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise TooLong(path, most_bytes)
    return data


def check_regular(path: str) -> None:
    """Make sure that a library which takes a path will not wait for ever when it opens it.

    Raises:
        NotRegular: it is no regular file.
        OSError, ValueError: it cannot be opened.
    """
    open_regular(path).close()


def create(path: str, mode: int = 0o666) -> BinaryIO:
    """A file for writing, made or emptied; a named pipe that nobody reads is refused and not waited for.

    Raises:
        OSError, ValueError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, mode), "wb")


def _check_mode(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotRegular(path, mode)
