"""The far end of a worker's stream, for tests: blocking, with a bound on each wait."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trtd.child.stream import Stream, StreamClosed

PATIENCE_S = 20.0


class StreamEnd:
    """A stream whose reads wait."""

    def __init__(self, sock: socket.socket, *, takes_fds: bool = False) -> None:
        self.stream = Stream(sock, takes_fds=takes_fds)
        self._sock = sock

    @classmethod
    def connect(cls, path: str, *, takes_fds: bool = False) -> StreamEnd:
        """Connect as soon as somebody listens."""
        ends_at = time.monotonic() + PATIENCE_S
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(path)
                return cls(sock, takes_fds=takes_fds)
            except (FileNotFoundError, ConnectionRefusedError):
                sock.close()
                assert time.monotonic() < ends_at, f"nobody listens at {path}"
                time.sleep(0.005)

    def send(self, frames: Sequence[Any], fds: Sequence[int] = ()) -> None:
        """Send a message, all of it."""
        self.stream.send(frames, fds)
        while self.stream.has_output:
            select.select((), (self.stream,), (), PATIENCE_S)
            self.stream.flush()

    def send_bytes(self, data: bytes) -> None:
        """Send a few bytes that are no message."""
        assert self._sock.send(data) == len(data)

    def poll(self, timeout_s: float) -> bool:
        """Whether a message comes in this time."""
        return self._peek(timeout_s) is not None

    def receive(self, timeout_s: float = PATIENCE_S, what: str = "message") -> list[bytes]:
        """The frames of the next message."""
        frames = self._peek(timeout_s)
        assert frames is not None, f"no {what} within {timeout_s} s"
        self._peeked = None
        return frames

    _peeked: list[bytes] | None = None

    def _peek(self, timeout_s: float) -> list[bytes] | None:
        ends_at = time.monotonic() + timeout_s
        while self._peeked is None:
            frames = self.stream.receive()
            if frames is not None:
                self._peeked = [bytes(frame) for frame in frames]
            elif not select.select((self.stream,), (), (), max(0.0, ends_at - time.monotonic()))[0]:
                break
            else:
                try:
                    self.stream.fill()
                except StreamClosed:
                    break
        return self._peeked

    def close(self) -> None:
        """Hang up."""
        self.stream.close()


class StreamListener:
    """A unix socket that takes one connection after the other."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        self._socket.settimeout(PATIENCE_S)

    def accept(self) -> StreamEnd:
        """The next connection."""
        return StreamEnd(self._socket.accept()[0])

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        self.path.unlink(missing_ok=True)
