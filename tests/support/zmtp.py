"""ZMTP 3.1 by hand, for clients that do what libzmq would not."""

from __future__ import annotations

import socket
import struct

GREETING = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL".ljust(64, b"\x00")
MORE, LONG, COMMAND = 1, 2, 4


def frame(body: bytes, flags: int = 0) -> bytes:
    """One frame."""
    if len(body) > 255 or flags & LONG:
        return bytes([flags | LONG]) + struct.pack(">Q", len(body)) + body
    return bytes([flags, len(body)]) + body


def ready(identity: bytes = b"") -> bytes:
    """The READY command of a DEALER."""
    body = b"\x05READY"
    for name, value in ((b"Socket-Type", b"DEALER"), (b"Identity", identity)):
        body += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
    return frame(body, COMMAND)


def connect(path: str, timeout_s: float = 10.0) -> socket.socket:
    """A raw connection that has said nothing."""
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    raw.settimeout(timeout_s)
    raw.connect(path)
    return raw


def shake_hands(path: str) -> socket.socket:
    """A connection after its handshake."""
    raw = connect(path)
    raw.sendall(GREETING)
    received = b""
    while len(received) < 64:
        received += raw.recv(64 - len(received))
    raw.sendall(ready())
    assert raw.recv(4096)
    return raw


def is_closed_by_peer(raw: socket.socket) -> bool:
    """Whether the other side ends the connection before the timeout; what it sends before is thrown away."""
    try:
        while raw.recv(65_536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True
