"""Mutated ZMTP streams through a `Guest`: whatever the pieces in which they come, they mean the same, or are refused.

Each stream is made from (seed, index) alone, so that a finding replays without the ones before it.
"""

from __future__ import annotations

import random
import struct
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.support.zmtp import COMMAND, GREETING, LONG, MORE, frame
from trtd.router.backlog import Unread
from trtd.router.callers import Caller, Route
from trtd.router.guests import READ_BYTES, Broken, Guest
from trtd.wire.messages import MAX_HEADER_BYTES

MAX_REQUEST_BYTES = READ_BYTES + 5000
MAX_FRAME_BYTES = 2 * MAX_REQUEST_BYTES
MAX_KEPT_BYTES = MAX_HEADER_BYTES + MAX_REQUEST_BYTES + 2 * READ_BYTES + 16
"""What a message that is not whole may take: its header and frames, and what was read last."""
FILLING = b"\xa5"
"""No flags of a frame: where a size was changed, what follows is soon refused."""
MAX_BYTEWISE = 3000
"""Longer streams do not come byte by byte: that would take long and show nothing more."""
MAX_STEPS = 100_000
"""More than any of these streams takes; beyond it a guest does not come to an end."""
SIZES = (0, 1, 5, 255, 256, 300, MAX_REQUEST_BYTES - 1, MAX_REQUEST_BYTES + 1, READ_BYTES, READ_BYTES + 1, 3000)
CLAIMS = (0, 1, 5, 255, READ_BYTES, MAX_FRAME_BYTES, MAX_FRAME_BYTES + 1, 2**63 - 1, 2**63, 2**64 - 1)
COMMANDS = (
    b"\x04PING\0\1ctx", b"\x04PING", b"\x04PING" + bytes(30), b"\x04PONGx", b"\x09SUBSCRIBEx", b"\x05ERROR\x03400",
    b"\x05READY", b"\x03xyz", b"", b"\0", b"\xffabc",
)  # fmt: skip


class FakeSocket:
    """A connection whose bytes come in given pieces; what is written is kept."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = deque(piece for piece in pieces if piece)
        self.written = b""

    def setblocking(self, _: bool) -> None:
        pass

    def fileno(self) -> int:
        return -1

    def recv(self, most: int) -> bytes:
        if not self.pieces:
            raise BlockingIOError
        piece = self.pieces.popleft()
        if len(piece) > most:
            self.pieces.appendleft(piece[most:])
        return piece[:most]

    def recv_into(self, view: memoryview) -> int:
        piece = self.recv(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def send(self, data: bytes) -> int:
        self.written += data
        return len(data)

    def close(self) -> None:
        pass


class Outcome(NamedTuple):
    """What a guest makes of a stream: messages or errors, why it broke, what it said, and who it takes its peer for."""

    messages: list[tuple[bytes, tuple[bytes, ...], int, str]]
    broken: str
    written: bytes
    is_welcome: bool
    is_named: bool
    is_req: bool


@dataclass(slots=True)
class Report:
    """What a run found: outcomes by their words, and one line for each failure, with seed and index."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def run(count: int, seed: int, first: int = 0) -> Report:
    """Give so many streams to guests, whole and in pieces."""
    report = Report()
    for index in range(first, first + count):
        rng = random.Random(seed * 10**12 + index)
        stream = mutant(rng)
        try:
            whole = play([stream])
            assert play(cut(rng, stream)) == whole, "it depends on the pieces"
        except Exception as error:  # the very thing that is looked for; the run goes on to find the others
            report.failures.append(f"seed {seed} index {index}: guest: {type(error).__name__}: {error}")
            continue
        report.outcomes[whole.broken or "read to its end"] += 1
        report.outcomes["messages"] += len(whole.messages)
    return report


def play(pieces: Iterable[bytes]) -> Outcome:
    """Let a guest read all of a stream."""
    sock: Any = FakeSocket(pieces)
    caller = Caller(Route(None, b""), "uid:1", "")
    unread = Unread()
    guest = Guest(sock, caller, 1, MAX_FRAME_BYTES, MAX_REQUEST_BYTES, unread)
    messages = []
    broken = ""
    try:
        for _ in range(MAX_STEPS):
            received = guest.receive()
            if received is None:
                if not sock.pieces:
                    break
                guest.fill()
            elif not isinstance(received, int):
                _, header, frames, size, error = received
                messages.append((header, tuple(map(bytes, frames)), size, str(error or "")))
        else:
            raise AssertionError("it does not come to an end")
    except Broken as error:
        broken = str(error)
    begun_bytes = guest.begun_bytes
    assert begun_bytes <= MAX_KEPT_BYTES, f"it keeps {begun_bytes} bytes"
    guest.close()
    assert (guest.begun_bytes, unread.bytes) == (0, 0), "something is left of a closed connection"
    return Outcome(messages, broken, sock.written, guest.is_welcome, caller.is_named, caller.is_req)


def cut(rng: random.Random, stream: bytes) -> list[bytes]:
    """The stream in pieces: single bytes, small ones, or a few large ones."""
    sizes = rng.choice([(1,), (1, 2, 9, 64, 1000, 70_000), (len(stream) // 3 + 1, 100)])
    if len(stream) > MAX_BYTEWISE and sizes == (1,):
        sizes = (1, 5000)
    pieces = []
    at = 0
    while at < len(stream):
        pieces.append(stream[at : at + rng.choice(sizes)])
        at += len(pieces[-1])
    return pieces


def mutant(rng: random.Random) -> bytes:
    """A stream that is right or nearly so."""
    greeting = GREETING
    if rng.random() < 0.05:
        at = rng.choice((10, 11, 32, 40))
        greeting = greeting[:at] + bytes([rng.randrange(4)]) + greeting[at + 1 :]
    kind = rng.choice([b"DEALER"] * 6 + [b"REQ", b"ROUTER", b"SUB", b""])
    name = rng.choice([b"", b"", b"", b"x", bytes(255)])
    properties = b"".join(
        bytes([len(key)]) + key + struct.pack(">I", len(value)) + value
        for key, value in ((b"Socket-Type", kind), (b"Identity", name))
    )
    stream = greeting + frame(b"\x05READY" + properties, COMMAND)
    stream += b"".join(rng.choice(PARTS)(rng) for _ in range(rng.randrange(6)))
    if rng.random() < 0.5:
        return stream
    changed = bytearray(stream)
    for _ in range(rng.choice((1, 1, 2, 8))):
        # Most of them near the beginning, where the handshake is.
        at = rng.randrange(min(len(changed), rng.choice((150, len(changed)))))
        change = rng.randrange(3)
        if change == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            changed[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            del changed[at : at + rng.randrange(1, 9)]
    return bytes(changed)


def _message(rng: random.Random) -> bytes:
    frames = [FILLING * rng.choice(SIZES) for _ in range(rng.choice((1, 2, 2, 3, 4)))]
    return b"".join(frame(body, MORE) for body in frames[:-1]) + frame(frames[-1])


def _command(rng: random.Random) -> bytes:
    return frame(rng.choice(COMMANDS), COMMAND | rng.choice((0, 0, MORE, LONG)))


def _interrupted(rng: random.Random) -> bytes:
    return frame(b"header", MORE) + _command(rng) + frame(b"tensor")


def _many(rng: random.Random) -> bytes:
    return frame(b"", MORE) * rng.choice((1, 255, 256, 257, 258, 600)) + frame(b"")


def _claim(rng: random.Random) -> bytes:
    return (
        bytes([LONG | rng.choice((0, MORE, COMMAND))])
        + struct.pack(">Q", rng.choice(CLAIMS))
        + FILLING * rng.choice(SIZES)
    )


def _noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 12))


PARTS = (_message, _message, _message, _command, _interrupted, _many, _claim, _noise)
