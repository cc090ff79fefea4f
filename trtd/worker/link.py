"""The worker's connection to the router: one stream, made again whenever the router was replaced.

Every method but `wait` and `wake` is called under one lock, which `trtd.worker.loop` holds. `wait` touches file
descriptors only.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from trtd.child.stream import Stream, StreamClosed

CLOSE_S = 2.0
"""Longest wait for the last answers to leave when the worker ends."""
RECONNECT_S = 0.001
RECONNECT_MAX_S = 0.02


class Link:
    """The connection, and what a thread waits on."""

    def __init__(self, path: str, attach: bytes) -> None:
        """Be ready to connect.

        Args:
            path: of the router's socket for workers.
            attach: header of the first message of each connection.
        """
        self._path = path
        self._attach = attach
        self._stream: Stream | None = None
        self._fd = -1
        self._retry_s = RECONNECT_S
        self._wakeup_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.loss_fd = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable while there is no connection, for the thread that calls `connect`."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._stream is not None

    @property
    def has_output(self) -> bool:
        """Whether the router has not read all that was sent."""
        return self._stream is not None and self._stream.has_output

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until there may be something to do, `wake` is called, or the time is up. Needs no lock.

        Returns:
            False when the time is up.
        """
        fd, stream = self._fd, self._stream
        is_open = stream is not None and fd >= 0
        readers = (fd, self._wakeup_fd) if is_open else (self._wakeup_fd,)
        writers = (fd,) if is_open and stream is not None and stream.has_output else ()
        try:
            # Not poll(2): batch windows may be shorter than its milliseconds. Our descriptors are small numbers.
            ready, writable, _ = select.select(readers, writers, (), timeout_s)
        except OSError:
            # The connection was closed by another thread after it was looked at; the caller looks again.
            return True
        if self._wakeup_fd in ready:
            os.eventfd_read(self._wakeup_fd)
        return bool(ready) or bool(writable)

    def wake(self) -> None:
        """Let the thread that waits look again. Safe in any thread."""
        os.eventfd_write(self._wakeup_fd, 1)

    def connect(self) -> float | None:
        """Connect and say who we are, where there is no connection.

        Returns:
            Seconds to wait before the next try; None when it was done.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self._path)
            stream = Stream(sock, takes_fds=True)
            stream.send([self._attach])
        except (OSError, StreamClosed):
            sock.close()
            wait_s, self._retry_s = self._retry_s, min(2 * self._retry_s, RECONNECT_MAX_S)
            return wait_s
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.loss_fd)
        self._stream, self._fd, self._retry_s = stream, sock.fileno(), RECONNECT_S
        self.wake()
        return None

    def receive(self) -> list[list[memoryview]]:
        """The messages that have come, each as its frames. What comes meanwhile is left to the next call.

        Raises:
            Malformed: the router does not speak so.
        """
        messages: list[list[memoryview]] = []
        stream = self._stream
        if stream is None:
            return messages
        try:
            may_have_more = True
            while may_have_more:
                may_have_more = stream.fill()
                while (frames := stream.receive()) is not None:
                    messages.append(frames)
        except StreamClosed:
            self._lose()
        return messages

    def take_fd(self) -> int | None:
        """The descriptor that came beside a message, in the order of the messages; None where none is left."""
        fds: deque[int] = deque() if self._stream is None else self._stream.fds
        return fds.popleft() if fds else None

    def send(self, frames: Sequence[Any]) -> bool:
        """Send one message without waiting; the memory of large frames must not change until it has left.

        Returns:
            False when there is no connection. What it was about is of no use to the next router.
        """
        if self._stream is None:
            return False
        try:
            self._stream.send(frames)
        except StreamClosed:
            self._lose()
            return False
        return True

    def flush(self) -> None:
        """Go on with what the router did not read at once."""
        if self._stream is None or not self._stream.has_output:
            return
        try:
            self._stream.flush()
        except StreamClosed:
            self._lose()

    def _lose(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream, self._fd = None, -1
            os.eventfd_write(self.loss_fd, 1)

    def close(self) -> None:
        """Give the last answers some time to leave, then close."""
        ends_at = time.monotonic() + CLOSE_S
        while self._stream is not None and self._stream.has_output and (left := ends_at - time.monotonic()) > 0:
            select.select((), (self._fd,), (), left)
            self.flush()
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        os.close(self._wakeup_fd)
        os.close(self.loss_fd)
