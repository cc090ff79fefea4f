"""Socket activation as a service manager does it: sockets as descriptors 3, 4, ..., and variables that say so."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

_LAUNCH = """
import fcntl, os, sys
fds = [int(word) for word in sys.argv[1].split(",")]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
for place, fd in enumerate(high, 3):
    os.dup2(fd, place, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=":".join("s" * len(fds)))
os.execv(sys.argv[2], sys.argv[2:])
"""


def listening_socket(path: Path) -> socket.socket:
    """A unix socket that listens at the path."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen(64)
    return sock


def activated(argv: Sequence[str], sockets: Sequence[socket.socket]) -> tuple[list[str], tuple[int, ...]]:
    """The command line that starts a program with these sockets handed over, and the descriptors to pass to it."""
    fds = tuple(sock.fileno() for sock in sockets)
    if not fds:
        return list(argv), ()
    return [sys.executable, "-c", _LAUNCH, ",".join(map(str, fds)), *argv], fds


def place_at(first: int, *sockets: socket.socket | int) -> None:
    """Put descriptors at consecutive numbers, as a process finds them that was activated."""
    for number, sock in enumerate(sockets, first):
        os.dup2(sock if isinstance(sock, int) else sock.fileno(), number)
