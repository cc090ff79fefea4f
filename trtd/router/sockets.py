"""One ROUTER socket as the router uses it for peers over TCP: options that bound what a peer can do.

A `Port` never blocks. What its messages mean is for `trtd.router.endpoints`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import zmq
import zmq.backend

from trtd.child.doors import BACKLOG
from trtd.errors import InvalidConfig

HANDSHAKE_TIMEOUT_MS = 2000
HEARTBEAT_EVERY_MS = 1000
HEARTBEAT_TIMEOUT_MS = 3000
QUEUED_MESSAGES = 64
"""Messages of one peer that libzmq holds in each direction."""
HELD_FROM_BYTES = 64 * 1024
"""Frames from this size on are handed to libzmq without a copy, and counted until it lets go of them."""
MAX_HELD_BYTES = 16 * 1024 * 1024
"""Bytes of them that wait for a peer, from which on it is full. What one answer holds may be more."""
MAX_ALL_HELD_BYTES = 256 * 1024 * 1024
"""The same for all peers of one socket."""

WAIT_NOT = int(zmq.DONTWAIT)
MORE = int(zmq.SNDMORE)
MORE_WAIT_NOT = int(zmq.SNDMORE | zmq.DONTWAIT)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)


@dataclass(frozen=True, slots=True)
class PortOptions:
    """How one ROUTER socket treats its peers.

    Attributes:
        zap_domain: what the access check is told about the socket.
        max_frame_bytes: a peer that sends a longer frame is disconnected.
        curve_secret_key: Z85 secret key where peers have to speak CURVE.
    """

    zap_domain: str
    max_frame_bytes: int
    curve_secret_key: bytes | None = None


class Undelivered(Exception):
    """A message was not taken: the peer is gone, or `is_full` says that it does not read."""

    def __init__(self, *, is_full: bool) -> None:
        super().__init__("the peer does not read" if is_full else "the peer is gone")
        self.is_full = is_full


class Port:
    """One bound ROUTER socket.

    Args:
        context: of the process.
        options: see there.
        used: where it adds itself when it was used to send: its `has_input` has to be asked before waiting for `fd`.

    Attributes:
        fd: becomes readable when `has_input` has to be asked; see ZMQ_FD: alone it is no word on input.
        is_closed: whether `close` was called.
        address: where it listens.
        receive: `receive(WAIT_NOT)` copies a frame to bytes, `receive(0, False)` gives a `zmq.Frame`.
    """

    __slots__ = (
        "_context",
        "_get",
        "_held",
        "_listener_fd",
        "_send",
        "_socket",
        "_used",
        "address",
        "fd",
        "is_closed",
        "receive",
    )

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], options: PortOptions, used: set[Port]) -> None:
        self._held = HeldFrames()
        self._socket = context.socket(zmq.ROUTER)
        self._context = context
        self._listener_fd: int | None = None
        self._used = used
        self.address = ""
        self.is_closed = False
        for option, value in (
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.ROUTER_HANDOVER, 0),
            (zmq.RCVHWM, QUEUED_MESSAGES),
            (zmq.SNDHWM, QUEUED_MESSAGES),
            (zmq.MAXMSGSIZE, options.max_frame_bytes),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_TIMEOUT_MS),
            (zmq.HEARTBEAT_IVL, HEARTBEAT_EVERY_MS),
            (zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS),
            (zmq.BACKLOG, BACKLOG),
            (zmq.LINGER, 0),
        ):
            self._socket.setsockopt(option, value)
        self._socket.setsockopt(zmq.ZAP_DOMAIN, options.zap_domain.encode())
        if options.curve_secret_key is not None:
            self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, options.curve_secret_key)
        self.fd: int = self._socket.getsockopt(zmq.FD)  # type: ignore[assignment]  # an int for this option
        # The methods of the compiled class: the ones of pyzmq's own subclass cost a third more per frame.
        self.receive: Callable[..., Any] = zmq.backend.Socket.recv.__get__(self._socket)
        self._send: Callable[..., Any] = zmq.backend.Socket.send.__get__(self._socket)
        self._get: Callable[..., Any] = zmq.backend.Socket.get.__get__(self._socket)

    def bind(self, address: str, listener_fd: int | None = None) -> None:
        """Listen at a `tcp://` address. With `listener_fd`, which listens there already, a copy of it is used.

        Raises:
            OSError: the address is taken.
            InvalidConfig: the address is of another kind.
        """
        self._listener_fd = listener_fd
        if listener_fd is not None:
            self._socket.setsockopt(zmq.USE_FD, os.dup(listener_fd))
        elif address.startswith("tcp://"):
            is_ipv6 = address.startswith("tcp://[")
            require_network(is_ipv6)
            self._socket.setsockopt(zmq.IPV6, int(is_ipv6))
        else:
            raise InvalidConfig(f"address {address!r} is not tcp://")
        self._socket.bind(address)
        self.address = address

    def monitor(self) -> zmq.Socket[bytes]:
        """A socket from which can be read which connections were accepted and which have ended."""
        events = int(zmq.EVENT_ACCEPTED) | int(zmq.EVENT_DISCONNECTED) | int(zmq.EVENT_CLOSED)
        address = f"inproc://monitor-{id(self._socket)}"
        self._socket.monitor(address, events)
        reader = self._context.socket(zmq.PAIR)
        # Unbounded, because libzmq's I/O thread would block on a full monitor.
        reader.setsockopt(zmq.RCVHWM, 0)
        reader.setsockopt(zmq.LINGER, 0)
        reader.connect(address)
        return reader

    def set_listening(self, is_on: bool) -> None:
        """Stop to listen for a while, or listen again.

        Raises:
            OSError, zmq.ZMQError: that cannot be done.
        """
        if not is_on:
            endpoint: bytes = self._socket.getsockopt(zmq.LAST_ENDPOINT)  # type: ignore[assignment]  # bytes here
            self._socket.unbind(endpoint.rstrip(b"\0").decode())
            return
        if self._listener_fd is not None:
            self._socket.setsockopt(zmq.USE_FD, os.dup(self._listener_fd))
        self._socket.bind(self.address)

    def has_input(self) -> bool:
        """Whether a message waits."""
        return not self.is_closed and bool(self._get(_EVENTS) & _POLLIN)

    def send(self, peer: bytes, frames: Sequence[Any], _answers: int = 1) -> None:
        """Hand a message to libzmq, for one peer. How many answers are in it does not matter: libzmq tells of no loss.

        Raises:
            Undelivered: it was not taken, no frame of it.
        """
        send, held = self._send, self._held
        self._used.add(self)
        if held.is_full(peer):
            raise Undelivered(is_full=True)
        try:
            send(peer, MORE_WAIT_NOT)
        except zmq.Again:
            raise Undelivered(is_full=True) from None
        except zmq.ZMQError:
            raise Undelivered(is_full=False) from None
        last = len(frames) - 1
        for position, frame in enumerate(frames):
            flags = MORE if position < last else 0
            if len(frame) < HELD_FROM_BYTES:
                send(frame, flags)
            else:
                # Not copied: to copy a large one would take longer than others may wait.
                held.note(peer, len(frame), send(frame, flags, False, True))

    def look_after(self) -> None:
        """Count what has left meanwhile. To be called about once a second."""
        self._held.settle()

    def close(self, linger_s: float = 0.0) -> None:
        """Stop listening at once; answers that libzmq still holds get `linger_s` to leave. Repeatable."""
        if self.is_closed:
            return
        self.is_closed = True
        self._socket.disable_monitor()
        self._socket.close(linger=round(linger_s * 1000))


class HeldFrames:
    """Large frames that libzmq holds for peers: it counts messages, whatever their bytes."""

    __slots__ = ("_by_peer", "_total_bytes")

    def __init__(self) -> None:
        self._total_bytes = 0
        self._by_peer: dict[bytes, list[tuple[zmq.MessageTracker, int]]] = {}

    def is_full(self, peer: bytes) -> bool:
        """Whether so much waits for a peer, or for all of them, that it may get no more."""
        if not self._by_peer:
            return False
        if self._total_bytes >= MAX_ALL_HELD_BYTES:
            self.settle()
            if self._total_bytes >= MAX_ALL_HELD_BYTES:
                return True
        return peer in self._by_peer and self._settle(peer) >= MAX_HELD_BYTES

    def note(self, peer: bytes, size: int, tracker: zmq.MessageTracker) -> None:
        """A frame was handed over."""
        self._by_peer.setdefault(peer, []).append((tracker, size))
        self._total_bytes += size

    def settle(self) -> None:
        """Forget what has left."""
        for peer in list(self._by_peer):
            self._settle(peer)

    def _settle(self, peer: bytes) -> int:
        """Forget what has left for one peer; how much has not."""
        frames = self._by_peer[peer]
        left = [(tracker, size) for tracker, size in frames if not tracker.done]
        waiting = sum(size for _, size in left)
        self._total_bytes -= sum(size for _, size in frames) - waiting
        if left:
            self._by_peer[peer] = left
        else:
            del self._by_peer[peer]
        return waiting


def require_network(is_ipv6: bool) -> None:
    """Open and close the kinds of sockets that libzmq needs for TCP: where it gets none, it aborts its process.

    Raises:
        OSError: a sandbox refuses one of them.
    """
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    for needed, kind in ((family, socket.SOCK_STREAM), (socket.AF_NETLINK, socket.SOCK_RAW)):
        try:
            socket.socket(needed, kind).close()
        except OSError as error:
            text = (
                f"no socket of {needed.name} may be opened ({error.strerror}); see RestrictAddressFamilies= of the unit"
            )
            raise OSError(error.errno, text) from None
