"""ZMTP as the router speaks it: what is read of a peer's first words, and what is written."""

from __future__ import annotations

import pytest

from trtd.errors import Malformed
from trtd.wire import zmtp


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000])
def test_a_message_is_heads_and_frames(size):
    """Each frame has a head with its size, all but the last one say that more follow, and none is copied."""
    frames = [b"header", bytes(size)]
    head, first, last_head, last = zmtp.message_parts(frames)
    assert (head, first) == (b"\x01\x06", b"header")
    assert last is frames[1]
    if size <= 255:
        assert last_head == bytes((0, size))
    else:
        assert (last_head[0], zmtp.size_of(last_head, 0)) == (zmtp.LONG, size)


def test_a_greeting_is_judged_as_far_as_it_came():
    """Every beginning of a right greeting is one, and so is a minor version to come."""
    for length in range(1, zmtp.GREETING_BYTES + 1):
        zmtp.check_greeting(zmtp.GREETING[:length])
    zmtp.check_greeting(zmtp.GREETING[:11] + b"\x07" + zmtp.GREETING[12:])


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"GET / HTTP/1.1", "does not speak ZMTP"),
        (b"\xff" + bytes(9), "does not speak ZMTP"),
        (zmtp.GREETING[:10] + b"\x01", "before 3.0"),
        (zmtp.GREETING.replace(b"NULL\0", b"PLAIN"), "security mechanism"),
    ],
)
def test_another_greeting_is_refused(greeting, words):
    """Another protocol, an old version or a mechanism is malformed, and the line says which."""
    with pytest.raises(Malformed, match=words):
        zmtp.check_greeting(greeting)


def test_the_routers_own_command_can_be_read():
    """READY names the kind of the socket; names are found whatever their case."""
    name, rest = zmtp.split_command(zmtp.READY[2:])
    assert (zmtp.READY[0], zmtp.READY[1], name) == (zmtp.COMMAND, len(zmtp.READY) - 2, b"READY")
    assert zmtp.read_properties(rest) == {b"socket-type": b"ROUTER", b"identity": b""}


@pytest.mark.parametrize("cut", range(1, 30))
def test_cut_off_properties_are_malformed(cut):
    """Every cut that does not fall between two properties is malformed, and none is anything else."""
    _, rest = zmtp.split_command(zmtp.READY[2:])
    whole = rest[: 12 + 4 + 6]
    try:
        found = zmtp.read_properties(rest[:cut])
    except Malformed:
        return
    assert rest[:cut] == whole
    assert found == {b"socket-type": b"ROUTER"}


@pytest.mark.parametrize("body", [b"", b"\x05", b"\x06READY"])
def test_a_command_without_its_name_is_malformed(body):
    """A name that is not all there is none."""
    with pytest.raises(Malformed):
        zmtp.split_command(body)


def test_a_ping_is_answered_with_its_context():
    """What came with the PING comes back; one that is too short or too long gets nothing."""
    assert zmtp.pong(b"\x00\x64context") == b"\x04\x0c\x04PONGcontext"
    assert zmtp.pong(b"\x00\x64") == b"\x04\x05\x04PONG"
    assert zmtp.pong(b"\x00") is None
    assert zmtp.pong(bytes(2 + 17)) is None
