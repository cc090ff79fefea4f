"""A listening unix socket at a path: it appears with the right mode, is looked after while it is there, and goes.

Somebody may delete the path, or all of its directory, while we listen: then nobody finds us any more, and the kernel
does not tell. `Door.is_in_place` sees it, `Door.open` mends it. What lies at the path and is not ours stays there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

BACKLOG = 4096
"""Connections that wait for accept(2); the kernel's own limit may be lower."""

Identity = tuple[int, int]
"""Device and inode of a path."""


class Door:
    """One listening socket. Not blocking.

    Args:
        path: where it listens, in a directory in which the daemon alone may write.
        mode: permission bits of the path.
        kind: of its connections.
    """

    def __init__(self, path: Path, mode: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self.path = path
        self._mode = mode
        self._kind = kind
        self._listener: socket.socket | None = None
        self._identity: Identity | None = None
        self._was_open = False
        self._is_lent = False

    @classmethod
    def lent(cls, path: Path, mode: int, fd: int) -> Door:
        """A door at which another process opened the socket, with a copy of its descriptor; its path stays in the end.

        It is open, unless nobody is found there any more: then it is ours to open.
        """
        door = cls(path, mode)
        if is_answered(path):
            door._listener = socket.socket(fileno=os.dup(fd))
            door._identity = identity_of(path)
            door._is_lent = door._was_open = True
        return door

    @property
    def is_open(self) -> bool:
        """Whether it listens, at its path or lost."""
        return self._listener is not None

    def fileno(self) -> int:
        """The descriptor, for pollers; -1 while it is not open."""
        return -1 if self._listener is None else self._listener.fileno()

    def open(self) -> None:
        """Listen, also again after the path was lost. The socket appears at its path with its mode.

        It takes the place of a former process's socket. Once lost, it does not take that of a process which listens:
        somebody has started another daemon there.

        Raises:
            OSError: its directory cannot be made or written, the path is too long, or something else lies there.
        """
        self.close()
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        require_socket(self.path)
        if self._was_open and is_answered(self.path):
            raise OSError(errno.EADDRINUSE, f"another process listens at {self.path}; end it, or restart this daemon")
        # One thread binds sockets, so one name is enough, and a short one keeps within the 107 bytes of sun_path.
        fresh = self.path.with_name(".new")
        fresh.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, self._kind | socket.SOCK_NONBLOCK)
        try:
            listener.bind(str(fresh))
            fresh.chmod(self._mode)
            listener.listen(BACKLOG)
            identity = identity_of(fresh)
            fresh.rename(self.path)
        except OSError:
            listener.close()
            raise
        self._listener, self._identity, self._was_open = listener, identity, True

    def is_in_place(self) -> bool:
        """Whether who connects to the path finds this socket."""
        return self._listener is not None and identity_of(self.path) == self._identity

    def accept(self) -> socket.socket | None:
        """The next connection, None when there is none.

        Raises:
            OSError: there is one, and no descriptor for it.
        """
        if self._listener is None:
            return None
        try:
            return self._listener.accept()[0]
        except (BlockingIOError, ConnectionAbortedError):
            return None

    def close(self) -> None:
        """Listen no more, and take the path away if it is ours still. Repeatable."""
        if self._listener is None:
            return
        if not self._is_lent and self.is_in_place():
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._listener.close()
        self._listener = self._identity = None
        self._is_lent = False


def identity_of(path: Path) -> Identity | None:
    """What tells the file at a path from every other one; None where there is none, or none to be seen."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def require_socket(path: Path) -> None:
    """See that nothing lies at a path but a unix socket, or nothing at all.

    Raises:
        OSError: something else does; it is not ours to delete.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, f"{path} is there and is no socket; take it away")


def is_answered(path: Path) -> bool:
    """Whether a process listens at the path of a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as knock:
        code = knock.connect_ex(str(path))
    # EAGAIN: its backlog is full. EPROTOTYPE: it takes connections of another kind.
    return code in {0, errno.EAGAIN, errno.EPROTOTYPE}
