"""ZMTP 3.1 as the router speaks it on unix sockets: greeting, handshake, commands, frames (ZeroMQ RFC 23 and 37).

Pure. Clients use ZeroMQ's own library; the router reads and writes these connections itself, so that it sees who
connects before anything else happens, and so that no bound is somebody else's (`trtd.router.guests`).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

from trtd.errors import Malformed

GREETING = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL".ljust(64, b"\x00")
GREETING_BYTES = len(GREETING)
MORE, LONG, COMMAND = 1, 2, 4
ALL_FLAGS = MORE | LONG | COMMAND
SHORT_BYTES = 255
"""Longer frames have a size of eight bytes."""
PEER_TYPES = {b"DEALER", b"REQ", b"ROUTER"}
"""Kinds of sockets that may talk to a ROUTER."""

_SIZE = Struct(">Q")
_LONG_HEAD = Struct(">BQ")
_PROPERTY_SIZE = Struct(">I")
_MAJOR_AT, _MECHANISM = 10, slice(12, 32)
_MAJOR = 3
_PING_TTL_BYTES = 2
_MAX_CONTEXT_BYTES = 16


def head(size: int, flags: int) -> bytes:
    """What stands before a frame of this size."""
    return bytes((flags, size)) if size <= SHORT_BYTES else _LONG_HEAD.pack(flags | LONG, size)


def message_parts(frames: Sequence[Any]) -> list[Any]:
    """One message as parts to be written one after the other; frames are not copied."""
    last = len(frames) - 1
    parts: list[Any] = []
    for position, frame in enumerate(frames):
        parts.append(head(len(frame), MORE if position < last else 0))
        parts.append(frame)
    return parts


def size_of(data: bytes, at: int) -> int:
    """The size in the head of a long frame that starts at `at`."""
    size: int = _SIZE.unpack_from(data, at + 1)[0]
    return size


def _command(name: bytes, body: bytes) -> bytes:
    content = bytes((len(name),)) + name + body
    return head(len(content), COMMAND) + content


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + _PROPERTY_SIZE.pack(len(value)) + value


READY = _command(b"READY", _property(b"Socket-Type", b"ROUTER") + _property(b"Identity", b""))
"""The router's word that the handshake is done."""


def refusal(status: bytes) -> bytes:
    """The command that refuses a peer during the handshake, with three digits as in RFC 27."""
    return _command(b"ERROR", bytes((len(status),)) + status)


def pong(ping: bytes) -> bytes | None:
    """The answer to the body of a PING; None where it is no right one."""
    context = ping[_PING_TTL_BYTES:]
    if len(ping) < _PING_TTL_BYTES or len(context) > _MAX_CONTEXT_BYTES:
        return None
    return _command(b"PONG", context)


def check_greeting(greeting: bytes) -> None:
    """See that the first bytes of a peer, all of them or as many as came, are those of ZMTP 3 without a mechanism.

    Raises:
        Malformed: they are not.
    """
    if greeting[0] != GREETING[0] or greeting[9:10] not in (b"", GREETING[9:10]):
        raise Malformed("the peer does not speak ZMTP")
    if len(greeting) > _MAJOR_AT and greeting[_MAJOR_AT] < _MAJOR:
        raise Malformed("the peer speaks a version of ZMTP before 3.0")
    if len(greeting) == GREETING_BYTES and greeting[_MECHANISM] != GREETING[_MECHANISM]:
        raise Malformed("the peer wants a security mechanism; on a unix socket there is none")


def split_command(body: bytes) -> tuple[bytes, bytes]:
    """Name and rest of a command.

    Raises:
        Malformed: it has no name.
    """
    if not body or len(body) <= body[0]:
        raise Malformed("a command without a name")
    return body[1 : 1 + body[0]], body[1 + body[0] :]


def read_properties(body: bytes) -> dict[bytes, bytes]:
    """The properties of a READY command, with names in lower case.

    Raises:
        Malformed: they cannot be read.
    """
    found = {}
    at = 0
    while at < len(body):
        name = body[at + 1 : at + 1 + body[at]]
        at += 1 + body[at]
        if at + _PROPERTY_SIZE.size > len(body):
            raise Malformed("a property is cut off")
        size = _PROPERTY_SIZE.unpack_from(body, at)[0]
        at += _PROPERTY_SIZE.size
        if at + size > len(body):
            raise Malformed("a property is cut off")
        found[name.lower()] = body[at : at + size]
        at += size
    return found
