"""A socket of another process, lent by the kernel, so that a test can speak in that process's name."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

PIDFD_GETFD = 438
"""Number of the system call, the same on every architecture."""

_libc = ctypes.CDLL(None, use_errno=True)


def borrow_worker_stream(pid: int) -> socket.socket:
    """The connection between router and worker, from either of the two; there has to be one only.

    Whether it blocks is a property that both owners share, so it must not be changed here.
    """
    pidfd = os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if str(entry.readlink()).startswith("socket:"):
                fd = _libc.syscall(PIDFD_GETFD, pidfd, int(entry.name), 0)
                if fd < 0:
                    raise OSError(ctypes.get_errno(), f"pidfd_getfd of {pid}")
                sock = socket.socket(fileno=fd)
                if _is_worker_stream(sock):
                    return sock
                sock.close()
    finally:
        os.close(pidfd)
    raise AssertionError(f"process {pid} has no connection between router and worker")


def _is_worker_stream(sock: socket.socket) -> bool:
    if sock.family != socket.AF_UNIX:
        return False
    try:
        names = sock.getsockname(), sock.getpeername()
    except OSError:
        return False
    # A name is that of the moment of binding, before the socket was moved to its path: the directory alone tells.
    return any(Path(str(name)).parent.name == "router" for name in names)
