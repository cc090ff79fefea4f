"""One connection of a client, byte by byte: the same messages whatever the pieces in which they come."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import guest_fuzz
from tests.support import zmtp as peer_side
from trtd.errors import ErrorCode
from trtd.router.backlog import Unread
from trtd.router.callers import Caller, Route
from trtd.router.guests import MAX_OUT_BYTES, READ_BYTES, Broken, Guest
from trtd.router.sockets import QUEUED_MESSAGES, Undelivered
from trtd.wire import zmtp
from trtd.wire.messages import MAX_HEADER_BYTES, MAX_TENSORS

MAX_REQUEST_BYTES = 300_000
MAX_FRAME_BYTES = 2 * MAX_REQUEST_BYTES


class Table:
    """A guest, and the peer's end of its connection."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        self.unread = Unread()
        self.caller = Caller(Route(None, b""), "uid:1000", "")
        self.guest = Guest(ours, self.caller, 1000, MAX_FRAME_BYTES, MAX_REQUEST_BYTES, self.unread)

    def receive(self) -> list[Any]:
        """Everything that can be received now, as header, frames, and error code."""
        found = []
        while True:
            received = self.guest.receive()
            if received is None:
                if not self.guest.fill():
                    received = self.guest.receive()
                    if received is None:
                        return found
                else:
                    continue
            if not isinstance(received, int):
                caller, header, frames, _, error = received
                assert caller is self.caller
                found.append((header, [bytes(frame) for frame in frames], error and error.code))

    def close(self) -> None:
        self.guest.close()
        self.peer.close()


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table()
    yield made
    made.close()


def message(*frames: bytes) -> bytes:
    return b"".join(map(bytes, zmtp.message_parts(frames)))


HELLO = peer_side.GREETING + peer_side.ready()


@pytest.mark.parametrize("seed", range(5))
def test_messages_come_through_whatever_their_pieces(table, seed):
    """Handshake, messages and PINGs cut at random are what was sent, in order, and PINGs are answered."""
    rng = random.Random(seed)
    sizes = [0, 1, 255, 256, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 200_000]
    messages = [[rng.randbytes(rng.randrange(50)), *map(rng.randbytes, rng.choices(sizes, k=1))] for _ in range(20)]
    ping = peer_side.frame(b"\x04PING\0\0ctx", peer_side.COMMAND)
    stream = HELLO + b"".join(message(*frames) + ping for frames in messages)
    found, at = [], 0
    while at < len(stream):
        piece = stream[at : at + rng.choice([1, 7, 100, 60_000])]
        table.peer.sendall(piece)
        at += len(piece)
        found += table.receive()
    assert found == [(header, frames, None) for header, *frames in messages]
    table.peer.setblocking(False)
    assert table.peer.recv(100_000) == zmtp.READY + 20 * peer_side.frame(b"\x04PONGctx", peer_side.COMMAND)


def test_a_mutated_stream_means_the_same_whatever_its_pieces():
    """Some thousand streams, right and nearly so, are read or refused alike whole and cut, and leave nothing behind."""
    report = guest_fuzz.run(1500, seed=1)
    assert report.failures == []
    assert report.outcomes["messages"] > 500
    for words in ("read to its end", "no frame, or one that is far too long", "a command without a name"):
        assert report.outcomes[words] > 0


def test_a_guest_that_depends_on_pieces_is_found(monkeypatch):
    """The fuzzer notices where a long frame loses what came with its head."""
    begin = Guest._begin_long
    monkeypatch.setattr(Guest, "_begin_long", lambda self, flags, size, begun: begin(self, flags, size, begun[:50]))
    assert guest_fuzz.run(300, seed=1).failures


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([bytes(MAX_HEADER_BYTES + 1), b"x"], ErrorCode.MALFORMED),
        ([bytes(2 * READ_BYTES), b"x"], ErrorCode.MALFORMED),
        ([b"h", *[b""] * (MAX_TENSORS + 2)], ErrorCode.MALFORMED),
        ([b"h", *[b""] * 10_000], ErrorCode.MALFORMED),
        ([b"h", bytes(MAX_REQUEST_BYTES)], ErrorCode.TOO_LARGE),
        ([b"h", *[bytes(MAX_REQUEST_BYTES // 3)] * 3], ErrorCode.TOO_LARGE),
        ([b"h", *[bytes(READ_BYTES // 2)] * 20], ErrorCode.TOO_LARGE),
        ([b"h", bytes(MAX_FRAME_BYTES), bytes(MAX_FRAME_BYTES)], ErrorCode.TOO_LARGE),
    ],
)
def test_a_message_that_cannot_be_taken_is_refused_once_and_read_off(table, frames, code):
    """One error, with the header where that can be looked at, and the next message is taken as if nothing had been."""
    stream = HELLO + message(*frames) + message(b"next", b"1")
    found, at = [], 0
    while at < len(stream):
        table.peer.sendall(stream[at : at + 50_000])
        at += 50_000
        found += table.receive()
    header = b"h" if frames[0] == b"h" else b""
    assert found == [(header, [], code), (b"next", [b"1"], None)]


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\n",
        peer_side.GREETING + message(b"h"),
        peer_side.GREETING + peer_side.frame(b"\x05READY", peer_side.COMMAND),
        peer_side.GREETING + peer_side.frame(bytes(5000), peer_side.COMMAND),
        peer_side.GREETING + peer_side.frame(b"\x05READY\x0bSocket-Type\0\0\0\x03SUB", peer_side.COMMAND),
        HELLO + b"\x08\x01x",
        HELLO + peer_side.frame(b"", peer_side.COMMAND),
        HELLO + bytes((zmtp.LONG,)) + (MAX_FRAME_BYTES + 1).to_bytes(8),
        HELLO + bytes((zmtp.LONG | zmtp.COMMAND,)) + (READ_BYTES + 1).to_bytes(8),
    ],
)
def test_who_does_not_speak_so_is_broken_with(table, stream):
    """Another protocol, a message before the handshake, a wrong kind of socket, an impossible frame: the end."""
    table.peer.sendall(stream)
    with pytest.raises(Broken):
        table.receive()


def test_the_end_of_a_connection_comes_after_its_messages(table):
    """What was sent before the peer went away is still received."""
    table.peer.sendall(HELLO + message(b"h", b"1"))
    table.peer.close()
    assert table.guest.fill() is False
    assert table.guest.receive() == (table.caller, b"h", [b"1"], 2, None)
    assert table.guest.receive() is None
    with pytest.raises(Broken):
        table.guest.fill()


def test_a_name_of_its_own_is_noticed(table):
    """A peer that chose its routing id is known as such."""
    table.peer.sendall(peer_side.GREETING + peer_side.ready(b"me"))
    assert table.receive() == []
    assert table.caller.is_named


def test_who_does_not_read_is_full_and_gets_all_of_it_later(table):
    """What is kept for a slow reader is bounded in messages and bytes; once it reads, it gets all, in order."""
    answers = [bytes([number]) * 9000 for number in range(200)]
    taken: list[bytes] = []

    def send_all() -> None:
        for answer in answers:
            table.guest.send([b"h", answer])
            taken.append(message(b"h", answer))

    with pytest.raises(Undelivered) as refused:
        send_all()
    assert refused.value.is_full
    assert table.guest.has_output
    assert len(taken) >= QUEUED_MESSAGES
    table.peer.setblocking(False)
    came = b""
    while table.guest.has_output:
        came += table.peer.recv(1 << 20)
        table.guest.flush()
    came += table.peer.recv(1 << 20)
    assert came == b"".join(taken)
    table.guest.send([b"h", bytes(2 * MAX_OUT_BYTES)])
    with pytest.raises(Undelivered):
        table.guest.send([b"h"])


def test_nothing_can_be_sent_to_who_is_gone(table):
    """A peer that went away, or a guest that was closed, is undeliverable and not full."""
    table.peer.close()
    for _ in range(2):
        with pytest.raises(Undelivered) as refused:
            table.guest.send([b"h"])
        assert not refused.value.is_full
        table.guest.close()


def test_what_its_peer_did_not_read_is_given_up_with_the_connection(table):
    """Every answer that was taken for a peer either left whole or is counted when the connection is closed."""
    table.peer.sendall(HELLO + peer_side.frame(b"\x04PING\0\0", peer_side.COMMAND))
    table.receive()
    answer = bytes(60_000)
    answers = [1, 3] * (QUEUED_MESSAGES // 2)
    given = 0
    while True:
        try:
            table.guest.send([b"h", answer], answers[given % len(answers)])
        except Undelivered:
            break
        given += 1
    table.peer.sendall(peer_side.frame(b"\x04PING\0\0", peer_side.COMMAND))
    table.receive()
    table.guest.close()
    came = b""
    while piece := table.peer.recv(1 << 20):
        came += piece
    whole = (len(came) - len(zmtp.READY) - len(zmtp.pong(b"\0\0"))) // len(message(b"h", answer))
    assert 0 < whole < given
    assert table.unread.given_up == sum(answers[at % len(answers)] for at in range(whole, given))
    table.guest.close()
    assert table.unread.given_up == sum(answers[at % len(answers)] for at in range(whole, given))
