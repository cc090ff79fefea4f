"""The stream between router and worker over a real socket pair: order, sizes, descriptors, the end."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest

from tests.support.streams import StreamEnd
from trtd.child.buffers import MAPPED_FROM_BYTES
from trtd.child.stream import READ_BYTES, Stream, StreamClosed
from trtd.errors import Malformed
from trtd.router.chores import resident_bytes
from trtd.wire import packing


@pytest.fixture
def ends():
    """A stream under test, and the far end."""
    ours, theirs = socket.socketpair()
    near, far = Stream(ours), StreamEnd(theirs, takes_fds=True)
    yield near, far
    near.close()
    far.close()


SIZES = [0, 1, 15, 16, 17, 1024, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3_000_000, MAPPED_FROM_BYTES + 1]


def test_messages_of_all_sizes_arrive_as_they_went(ends):
    """Messages that the peer takes in parts, many at once, come whole and in order, frame by frame."""
    near, far = ends
    messages = [[os.urandom(size), b"", os.urandom(7)] for size in (*SIZES, *reversed(SIZES))]
    for message in messages:
        near.send(message)
    assert near.has_output
    for message in messages:
        while near.has_output and not far.poll(0):
            near.flush()
        assert far.receive() == message
    assert not near.has_output


def test_what_was_handed_out_does_not_change(ends):
    """Frames stay as they were when later messages are read."""
    near, far = ends
    for size in (100, 2 * READ_BYTES):
        far.send([b"a" * size])
        frames = read(near)
        far.send([b"b" * size])
        read(near)
        assert bytes(frames[0]) == b"a" * size


def test_frames_are_aligned(ends):
    """Every frame starts at a multiple of 16 bytes, also behind one of odd length."""
    near, far = ends
    far.send([b"x" * 3, b"y" * 5])
    far.send([b"z" * 7])
    for frame in (*read(near), *read(near)):
        assert np.frombuffer(frame, np.uint8).ctypes.data % packing.ALIGNMENT_BYTES == 0


def test_descriptors_travel_beside_their_message(ends):
    """Descriptors come in the order of their messages, also when an earlier message still waits to be taken."""
    near, far = ends
    near.send([bytes(5_000_000)])
    files = [os.memfd_create(name) for name in ("a", "b")]
    for number, fd in enumerate(files):
        os.write(fd, b"%d" % number)
        near.send([b"%d" % number], [fd])
        os.close(fd)
    while near.has_output:
        near.flush()
        far.poll(0)
    assert len(far.receive()[0]) == 5_000_000
    for number in range(2):
        assert far.receive() == [b"%d" % number]
        fd = far.stream.fds.popleft()
        assert os.pread(fd, 1, 0) == b"%d" % number
        os.close(fd)


def test_descriptors_that_nobody_wants_are_closed():
    """An end that takes no descriptors gets none, and the one that was sent is gone with its sender's copy."""
    ours, theirs = socket.socketpair()
    near, far = Stream(ours), StreamEnd(theirs)
    reading, writing = os.pipe()
    far.send([b"take this"], [writing])
    os.close(writing)
    assert [bytes(frame) for frame in read(near)] == [b"take this"]
    assert os.read(reading, 1) == b""
    os.close(reading)
    near.close()
    far.close()


def test_the_end_comes_after_all_that_was_sent(ends):
    """What the peer sent before it closed is read first; then both directions say that it is gone."""
    near, far = ends
    far.send([b"last words"])
    far.close()
    assert [bytes(frame) for frame in read(near)] == [b"last words"]
    with pytest.raises(StreamClosed):
        near.fill()
    with pytest.raises(StreamClosed):
        near.send([b"hello?"])


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 16,
        packing.HEAD.pack(packing.MAGIC, packing.MAX_FRAMES + 1, 1 << 20),
        packing.HEAD.pack(packing.MAGIC, 1, 1 << 40),
    ],
    ids=["no head", "too many frames", "too long"],
)
def test_what_is_no_message_is_malformed(data):
    """Bytes that are no packed message are refused, before memory is taken for what they claim."""
    ours, theirs = socket.socketpair()
    near = Stream(ours)
    theirs.sendall(data)
    with pytest.raises(Malformed):
        read(near)
    near.close()
    theirs.close()


def read(stream: Stream) -> list[memoryview]:
    """The next message, as the stream hands it out."""
    while (frames := stream.receive()) is None:
        stream.fill()
    return frames


def test_a_claim_takes_no_memory(ends):
    """What a peer says of a message's size costs nothing until bytes come; over the bound it is refused."""
    near, far = ends
    near.max_message_bytes = (1 << 30) + packing.HEAD.size
    before = resident_bytes()
    far.send_bytes(packing.HEAD.pack(packing.MAGIC, 1, 1 << 30) + bytes(READ_BYTES))
    while near.receive() is None and near.fill():
        pass
    assert resident_bytes() - before < 16 << 20
    near.max_message_bytes -= 1
    far.send_bytes(b"more")
    with pytest.raises(Malformed, match="1073741840 bytes is too long: the most is 1073741839"):
        near.fill()
