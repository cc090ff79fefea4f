"""The runtime directory: ours alone to write, and one daemon at a time."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from trtd import observe
from trtd.child.doors import identity_of
from trtd.errors import NotAllowed, Unavailable
from trtd.wire import addresses

log = observe.get_logger()

MODE = 0o755
"""Everybody may pass to the sockets; who may use one is decided at the socket."""


def prepare(path: str) -> None:
    """Make the runtime directory, or check that the present one is safe.

    Raises:
        NotAllowed: it belongs to somebody else, others may write to it, or it cannot be made.
    """
    directory = Path(path)
    try:
        directory.mkdir(mode=MODE, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise NotAllowed(f"runtime directory {path} cannot be made: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise NotAllowed(f"runtime directory {path} is no directory")
    if status.st_uid != os.geteuid():
        raise NotAllowed(f"runtime directory {path} belongs to uid {status.st_uid}, not to uid {os.geteuid()}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise NotAllowed(f"runtime directory {path} may be written by others (mode {mode:04o}); make it 0755")
    if stat.S_IMODE(status.st_mode) & 0o555 != 0o555:
        directory.chmod(MODE)


class Lock:
    """The lock of the one daemon of a runtime directory; the kernel lets go of it when we die.

    Args:
        path: of the directory.

    Raises:
        Unavailable: another daemon holds it.
        NotAllowed: the lock file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = _lock(path)

    def look_after(self) -> None:
        """Make the directory and take the lock again, where somebody deleted them.

        Raises:
            Unavailable: another daemon was started meanwhile, and has the directory.
            NotAllowed: as `prepare`, and as above.
        """
        status = os.fstat(self._fd)
        if identity_of(Path(addresses.lock_path(self._path))) == (status.st_dev, status.st_ino):
            return
        prepare(self._path)
        fd = _lock(self._path)
        self.close()
        self._fd = fd
        log.error("runtime_dir.lock_lost", path=self._path)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def _lock(path: str) -> int:
    lock = addresses.lock_path(path)
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise NotAllowed(f"{lock} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise Unavailable(f"another daemon (pid {holder}) serves {path} already") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
    return fd
