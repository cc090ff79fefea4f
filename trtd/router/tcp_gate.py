"""How many connections one TCP socket has, in all and by address. libzmq accepts them; those beyond are ended.

libzmq tells of each connection that it accepted or lost. One beyond a bound is shut down at once, before its handshake;
where descriptors run short the socket listens no more for a while. libzmq survives that a TCP socket finds no
descriptor, so what it accepts before we hear of it costs nobody more than a part of the reserve.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

import zmq

from trtd.core.ids import TenantName
from trtd.core.places import Places
from trtd.router.descriptors import GUESTS
from trtd.router.reception import Reception

MAX_CONNECTIONS = 1024
"""Most connections of one tenant over TCP."""
SHARE_OF_ONE_ADDRESS = 1, 2
"""Part of these that one address may have."""
MAX_EVENTS = 1000
"""Events that are heard in one turn of the loop."""

_EVENT = struct.Struct("=HI")
_ACCEPTED = int(zmq.EVENT_ACCEPTED)
_ENDED = {int(zmq.EVENT_DISCONNECTED), int(zmq.EVENT_CLOSED)}


class TcpGate:
    """Watches one bound socket.

    Args:
        reception: what all endpoints share.
        tenant: whose.
        monitor: of the socket, for accepted and ended connections.
        set_listening: makes the socket listen, or stop it; raises zmq.ZMQError or OSError where that fails.

    Attributes:
        refused: connections that were ended.
        problem: why it does not listen though it should; empty while it does.
    """

    def __init__(
        self,
        reception: Reception,
        tenant: TenantName,
        monitor: zmq.Socket[bytes],
        set_listening: Callable[[bool], None],
    ) -> None:
        self.refused = 0
        self.problem = ""
        self._reception = reception
        self._tenant = tenant
        self._monitor = monitor
        self._set_listening = set_listening
        self._is_listening = True
        self._places = Places(0, 0)
        self._addresses: dict[int, str] = {}
        self._fd: int = monitor.getsockopt(zmq.FD)  # type: ignore[assignment]  # an int for this option
        reception.poller.watch(self._fd, self.hear)
        self.hear()

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._addresses)

    def hear(self) -> None:
        """Take in what libzmq tells."""
        for _ in range(MAX_EVENTS):
            try:
                head, *_ = self._monitor.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            event, fd = _EVENT.unpack(head)
            if event == _ACCEPTED:
                self._enter(fd)
            elif event in _ENDED:
                self._leave(fd)

    def _enter(self, fd: int) -> None:
        address = _with_socket(fd, lambda sock: str(sock.getpeername()[0]))
        if address is None:
            # It is gone already.
            return
        self._leave(fd)
        descriptors, places = self._reception.descriptors, self._places
        places.most = descriptors.share(MAX_CONNECTIONS, GUESTS)
        part, whole = SHARE_OF_ONE_ADDRESS
        places.most_each = max(1, places.most * part // whole)
        problem = places.take(address)
        if problem is not None:
            self.refused += 1
            _with_socket(fd, lambda sock: sock.shutdown(socket.SHUT_RDWR))
            self._reception.report("peer.refused", self._tenant, cause=problem, address=address)
        else:
            self._addresses[fd] = address
        if fd > descriptors.max_fd and self._is_listening:
            self._listen(False)

    def _leave(self, fd: int) -> None:
        address = self._addresses.pop(fd, None)
        if address is not None:
            self._places.leave(address)

    def look_after(self) -> None:
        """Hear what is left, forget what has ended unheard, and listen again. To be called about once a second."""
        self.hear()
        for fd in list(self._addresses):
            if _with_socket(fd, lambda sock: sock.getpeername()) is None:
                self._leave(fd)
        if not self._is_listening:
            self._listen(True)

    def _listen(self, is_on: bool) -> None:
        try:
            self._set_listening(is_on)
        except (OSError, zmq.ZMQError) as error:
            self.problem = f"the TCP socket cannot listen: {error}"
            self._reception.report("endpoint.open_failed", self._tenant, cause=self.problem)
            return
        self._is_listening, self.problem = is_on, ""
        if not is_on:
            self._reception.report("endpoint.paused", self._tenant, cause="no descriptors to spare")

    def close(self) -> None:
        """Watch no more."""
        self._reception.poller.unwatch(self._fd)
        self._monitor.close(linger=0)


def _with_socket(fd: int, use: Callable[[socket.socket], Any]) -> Any:
    """What `use` gives for a connection of libzmq's, which stays open; None where there is no such connection."""
    with contextlib.suppress(OSError):
        sock = socket.socket(fileno=fd)
        try:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
                return use(sock)
        finally:
            sock.detach()
    return None
