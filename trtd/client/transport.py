"""SHELL: one DEALER socket to one endpoint, and the monitor that tells when its connection comes and goes.

Not safe for several threads; whoever uses it holds a lock or runs in one thread. What is sent, and when again, is
decided in `trtd.client.pending`.
"""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import zmq

from trtd.client import forks
from trtd.errors import Usage

RECONNECT_MS = 1
LONGEST_RECONNECT_MS = 50
HEARTBEAT_MS = 1000
HEARTBEAT_TIMEOUT_MS = 3000
HANDSHAKE_MS = 2000
SEND_QUEUE_MESSAGES = 256
READABLE = int(zmq.POLLIN)
WRITABLE = int(zmq.POLLOUT)
ZERO_COPY_BYTES = 256 * 1024
"""Tensors from this size on are sent from the caller's memory; below it, a copy is cheaper than the bookkeeping."""

_DESCRIPTORS = 16
"""More than one connection needs at any time."""
_KEY_CHARACTERS = 40
_EVENTS = int(zmq.EVENTS)
_NOBLOCK = int(zmq.NOBLOCK)
_SNDMORE = int(zmq.SNDMORE)
_NOT_NOW = 300
"""Status of a refusal that another time may not meet (ZeroMQ RFC 27)."""
_EVENT_HEADER = struct.Struct("=HI")


class ConnectionEvent(Enum):
    """What became of the connection."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    NOT_ALLOWED = "the daemon refused this user or key"
    TOO_MANY = "too many connections of this user or tenant are open"
    HANDSHAKE_FAILED = "the peer does not speak ZeroMQ, has another CURVE key than expected, or no place for us"


_CONNECTION_EVENTS: dict[int, ConnectionEvent] = {
    int(zmq.EVENT_HANDSHAKE_SUCCEEDED): ConnectionEvent.CONNECTED,
    int(zmq.EVENT_DISCONNECTED): ConnectionEvent.DISCONNECTED,
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): ConnectionEvent.NOT_ALLOWED,
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): ConnectionEvent.HANDSHAKE_FAILED,
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): ConnectionEvent.HANDSHAKE_FAILED,
}


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """Keys for a `tcp://` endpoint, each as 40 characters of Z85.

    Attributes:
        server_key: the daemon's public key.
        public_key: the client's own.
        secret_key: the client's own.
    """

    server_key: str
    public_key: str
    secret_key: str


class Transport:
    """One connection to one endpoint, made again by ZeroMQ whenever it is lost.

    One that is dropped instead of closed is closed when it is collected, with a `ResourceWarning`. Left to itself the
    collector may take the context before its sockets, and wait for them for ever.
    """

    def __init__(self, address: str, curve: CurveKeys | None = None) -> None:
        """Begin to connect.

        Raises:
            trtd.errors.Usage: the address or a key is not one, or this process has no descriptors left.
        """
        if not isinstance(address, str):
            raise Usage(f"an address is a string such as 'ipc:///run/trtd/a.sock', not a {type(address).__name__}")
        if not address.isprintable():
            raise Usage(f"{address!a} cannot be connected to: an address has no control characters")
        if curve is not None:
            _check_keys(curve)
        _check_descriptors(address)
        self.address = address
        # A context of its own, so that close() ends every thread and descriptor of this client.
        self._context = context = zmq.Context()
        self._socket = context.socket(zmq.DEALER)
        self._monitor = context.socket(zmq.PAIR)
        # What is dropped is kept whole for its end by the finalizer, which the collector cannot reach.
        self._end = weakref.finalize(self, _drop, address, forks.depth, context, self._socket, self._monitor)
        # The end of the process releases everything, and threads may still use it until then.
        self._end.atexit = False
        try:
            self._connect(curve)
        except (zmq.ZMQError, ValueError, TypeError) as error:
            self.close()
            raise Usage(f"{address!r} cannot be connected to: {error}") from None
        self.fd = cast("int", self._socket.get(zmq.FD))
        self.monitor_fd = cast("int", self._monitor.get(zmq.FD))

    def _connect(self, curve: CurveKeys | None) -> None:
        options: dict[int, int] = {
            zmq.LINGER: 0,
            # Nothing is queued for a daemon that is not there: requests wait in `PendingRequests`.
            zmq.IMMEDIATE: 1,
            zmq.SNDHWM: SEND_QUEUE_MESSAGES,
            # What can arrive is bounded by what was asked for.
            zmq.RCVHWM: 0,
            zmq.RECONNECT_IVL: RECONNECT_MS,
            zmq.RECONNECT_IVL_MAX: LONGEST_RECONNECT_MS,
            zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
            zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
            zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
            zmq.IPV6: 1,
        }
        for option, value in options.items():
            self._socket.set(option, value)
        if curve is not None:
            self._socket.set(zmq.CURVE_SERVERKEY, curve.server_key.encode())
            self._socket.set(zmq.CURVE_PUBLICKEY, curve.public_key.encode())
            self._socket.set(zmq.CURVE_SECRETKEY, curve.secret_key.encode())
        events = 0
        for event in _CONNECTION_EVENTS:
            events |= event
        self._socket.monitor("inproc://monitor", events)
        # Unbounded, because ZeroMQ's I/O thread would block on a full monitor.
        self._monitor.set(zmq.RCVHWM, 0)
        self._monitor.set(zmq.LINGER, 0)
        self._monitor.connect("inproc://monitor")
        self._socket.connect(self.address)

    def reconnect(self) -> None:
        """Begin to connect anew: ZeroMQ itself does not try again after a handshake that was refused."""
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disconnect(self.address)
        self._socket.connect(self.address)

    def send(self, header: bytes, tensors: Sequence[Any]) -> bool:
        """Send one message; large tensors are not copied and must stay unchanged until the answer is there.

        Returns:
            False when there is no connection, or it takes no more at the moment: nothing was sent.
        """
        try:
            if not tensors:
                self._socket.send(header, _NOBLOCK)
                return True
            self._socket.send(header, _NOBLOCK | _SNDMORE)
        except zmq.Again:
            return False
        last = len(tensors) - 1
        for position, tensor in enumerate(tensors):
            flags = _NOBLOCK if position == last else _NOBLOCK | _SNDMORE
            # Once the first part is taken, only the end of the connection refuses another one. The message is lost with
            # it, as the monitor will tell; ZeroMQ still has to be given the other parts, to drop them.
            with contextlib.suppress(zmq.Again):
                self._socket.send(tensor, flags, copy=_size_bytes(tensor) < ZERO_COPY_BYTES)
        return True

    def readiness(self) -> int:
        """`READABLE` and `WRITABLE` as they are now. Renews the edge of `fd`, which tells of changes only."""
        return cast("int", self._socket.get(_EVENTS))

    def receive(self) -> list[Any] | None:
        """One whole message as its header's bytes and views of the other frames, None when there is none."""
        try:
            frame = self._socket.recv(_NOBLOCK, copy=False)
        except zmq.Again:
            return None
        frames: list[Any] = [frame.bytes]
        while frame.more:
            frame = self._socket.recv(_NOBLOCK, copy=False)
            frames.append(frame.buffer)
        return frames

    def connection_events(self) -> list[ConnectionEvent]:
        """What became of the connection since the last call, oldest first. Renews the edge of `monitor_fd`."""
        events = []
        while True:
            try:
                parts = self._monitor.recv_multipart(_NOBLOCK)
            except zmq.Again:
                break
            number, value = _EVENT_HEADER.unpack_from(parts[0])
            event = _CONNECTION_EVENTS.get(number)
            if event is ConnectionEvent.NOT_ALLOWED and value == _NOT_NOW:
                event = ConnectionEvent.TOO_MANY
            if event is not None:
                events.append(event)
        if ConnectionEvent.CONNECTED in events:
            # ZeroMQ swaps the pipes of the old connection and the new one only when it looks at its commands.
            self._socket.get(_EVENTS)
        return events

    def close(self) -> None:
        """Release sockets, threads and descriptors; repeatable."""
        if self._end.detach() is not None:
            _release(self._context, self._socket, self._monitor)


def _drop(
    address: str, fork_depth: int, context: zmq.Context[Any], socket: zmq.Socket[Any], monitor: zmq.Socket[Any]
) -> None:
    # Any thread may come here at any time, in the middle of a garbage collection: nobody else knows the sockets by now.
    if fork_depth == forks.depth:
        _release(context, socket, monitor)
        warnings.warn(f"a client of {address} was dropped without close()", ResourceWarning, stacklevel=2)


def _release(context: zmq.Context[Any], socket: zmq.Socket[Any], monitor: zmq.Socket[Any]) -> None:
    with contextlib.suppress(zmq.ZMQError):
        socket.disable_monitor()
    monitor.close(linger=0)
    socket.close(linger=0)
    context.term()


def _check_keys(curve: CurveKeys) -> None:
    if not isinstance(curve, CurveKeys):
        raise Usage(f"curve has to be CurveKeys, not a {type(curve).__name__}")
    for name in ("server_key", "public_key", "secret_key"):
        key = getattr(curve, name)
        if not isinstance(key, str) or len(key) != _KEY_CHARACTERS or not key.isascii():
            # The key itself may be a secret.
            raise Usage(f"{name} has to be a string of {_KEY_CHARACTERS} characters of Z85")


def _check_descriptors(address: str) -> None:
    """Refuse what would leave libzmq without descriptors, because it ends the process then.

    Raises:
        trtd.errors.Usage: see above.
    """
    with contextlib.ExitStack() as reserve:
        try:
            for _ in range(_DESCRIPTORS):
                reserve.callback(os.close, os.eventfd(0, os.EFD_CLOEXEC))
        except OSError as error:
            raise Usage(
                f"{address!r} cannot be connected to: {error.strerror}; a client needs {_DESCRIPTORS} descriptors"
            ) from None


def _size_bytes(tensor: Any) -> int:
    return tensor.nbytes if hasattr(tensor, "nbytes") else len(tensor)
