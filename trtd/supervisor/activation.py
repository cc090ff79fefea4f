"""Sockets that the service manager opened for us (sd_listen_fds(3)): taken once, kept for good, lent to each router.

The daemon holds them for as long as it lives, so that connections wait in them while a router is replaced; the
service manager holds them while the daemon is. They are matched with tenants by where they listen, not by name.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator, MutableMapping

from trtd import observe
from trtd.wire.settings import Listener

FIRST_FD = 3
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
ANY_HOST = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound

log = observe.get_logger()


def take_listeners(environ: MutableMapping[str, str], pid: int) -> tuple[Listener, ...]:
    """The listening sockets that were handed to this process, each with the ZeroMQ addresses that it stands for.

    The variables are removed, and no child inherits a socket by accident. What is no listening unix or TCP socket is
    closed and logged.
    """
    owner, count, names = (environ.pop(name, None) for name in VARIABLES)
    if owner != str(pid) or count is None or not count.isdigit():
        return ()
    titles = (names or "").split(":")
    found = []
    for index in range(int(count)):
        fd = FIRST_FD + index
        addresses = list(_addresses(fd))
        if not addresses:
            title = titles[index] if index < len(titles) else ""
            log.warning("listener.refused", name=title, fd=fd, cause="it is no listening unix or TCP socket")
            _close(fd)
            continue
        os.set_inheritable(fd, False)
        # libzmq accepts until there is nothing left, which must not block.
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
        found += [Listener(address, fd) for address in addresses]
    return tuple(found)


def _addresses(fd: int) -> Iterator[str]:
    """Where a listening socket listens, as the configuration may name it; nothing for any other descriptor."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return
        sock = socket.socket(fileno=os.dup(fd))
    except OSError:
        return
    with sock:
        is_stream = sock.type == socket.SOCK_STREAM
        if not is_stream or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return
        name = sock.getsockname()
        if sock.family == socket.AF_UNIX:
            if isinstance(name, str) and name.startswith("/"):
                yield f"ipc://{name}"
        elif sock.family in (socket.AF_INET, socket.AF_INET6):
            host, port = name[:2]
            yield f"tcp://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"tcp://{host}:{port}"
            if host in ANY_HOST:
                yield f"tcp://*:{port}"


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return
