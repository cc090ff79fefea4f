"""The worker's connection to the router: one DEALER socket, made again by libzmq whenever the router was replaced.

The socket is not thread-safe: every method but `wait`, `wake` and `take_connected` is called under one lock, which
`trtd.worker.loop` holds. `wait` touches file descriptors only. The descriptor of a ZeroMQ socket is edge-triggered, and
any call on the socket may take the edge away; so whoever used the socket has to empty it with `receive` before anybody
waits again.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import Any

import zmq

CLOSE_S = 2.0
"""Longest wait for the last answers to leave when the worker ends."""
HEARTBEAT_EVERY_MS = 500
HEARTBEAT_TIMEOUT_MS = 2000
HANDSHAKE_TIMEOUT_MS = 2000
ZERO_COPY_BYTES = 256 * 1024
"""Frames from this size on are sent from their own memory; below it, a copy is cheaper than pyzmq's bookkeeping."""
RECONNECT_MS = 1
RECONNECT_MAX_MS = 20

OPTIONS = {
    zmq.LINGER: 0,
    # Nothing is queued for a router that is not there: the next one would not know the question.
    zmq.IMMEDIATE: 1,
    zmq.RECONNECT_IVL: RECONNECT_MS,
    zmq.RECONNECT_IVL_MAX: RECONNECT_MAX_MS,
    # The router bounds what is outstanding; a bound here would only block a slot. It bounds the size of a request too,
    # by a limit that may change: libzmq never connects again after a frame beyond a limit of this side.
    zmq.SNDHWM: 0,
    zmq.RCVHWM: 0,
    zmq.HEARTBEAT_IVL: HEARTBEAT_EVERY_MS,
    zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
    zmq.HANDSHAKE_IVL: HANDSHAKE_TIMEOUT_MS,
}


# Plain numbers: an operation on flags of an enum takes longer than the call that it is for.
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)


class Link:
    """The connection, and what a thread waits on."""

    def __init__(self, address: str, attach: bytes) -> None:
        """Start to connect.

        Args:
            address: ZeroMQ address of the router's endpoint for workers.
            attach: header of the first message of each connection.
        """
        self._attach = attach
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in OPTIONS.items():
            self._socket.setsockopt(option, value)
        self._socket.copy_threshold = ZERO_COPY_BYTES
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._wakeup_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._fds = (int(self._socket.getsockopt(zmq.FD)), self._wakeup_fd)
        self.connection_fd = int(self._monitor.getsockopt(zmq.FD))
        """Readable when a connection may have been made since the last `take_connected`."""
        self._socket.connect(address)

    def wait(self, timeout_s: float | None) -> None:
        """Wait until there may be something to receive, `wake` is called, or the time is up. Needs no lock."""
        # Not poll(2): batch windows may be shorter than its milliseconds. Our descriptors are small numbers.
        ready, _, _ = select.select(self._fds, (), (), timeout_s)
        if self._wakeup_fd in ready:
            os.eventfd_read(self._wakeup_fd)

    def wake(self) -> None:
        """Let the thread that waits look again. Safe in any thread."""
        os.eventfd_write(self._wakeup_fd, 1)

    def take_connected(self) -> bool:
        """Whether a connection was made since the last call. Touches the monitor only."""
        is_connected = False
        while int(self._monitor.getsockopt(zmq.EVENTS)) & _READABLE:
            self._monitor.recv_multipart(_NOBLOCK)
            is_connected = True
        return is_connected

    def attach(self) -> bool:
        """Say who we are; False when the connection is gone already, and another one will be made."""
        return self.send([self._attach])

    def receive(self) -> list[zmq.Frame] | None:
        """The next message, None when there is none at the moment."""
        if not int(self._socket.getsockopt(zmq.EVENTS)) & _READABLE:
            return None
        frame = self._socket.recv(_NOBLOCK, copy=False)
        frames = [frame]
        while frame.more:
            frame = self._socket.recv(_NOBLOCK, copy=False)
            frames.append(frame)
        return frames

    def send(self, frames: Sequence[Any]) -> bool:
        """Send one message without waiting; large frames are sent from their own memory, which must not change.

        Returns:
            False when there is no connection. What it was about is of no use to the next router.
        """
        try:
            self._send(frames)
        except zmq.Again:
            # A connection that was just made is only known to the socket once it has looked at its mail.
            self._socket.getsockopt(zmq.EVENTS)
            try:
                self._send(frames)
            except zmq.Again:
                return False
        return True

    def _send(self, frames: Sequence[Any]) -> None:
        # A connection that breaks between two frames refuses the next one too: then the socket drops the message that
        # follows it up to its last frame, which is this one again.
        send = self._socket.send
        for frame in frames[:-1]:
            send(frame, _MORE, copy=False)
        send(frames[-1], _NOBLOCK, copy=False)

    def close(self) -> None:
        """Give the last answers some time to leave, then close."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(CLOSE_S * 1000))
        self._context.term()
        os.close(self._wakeup_fd)
