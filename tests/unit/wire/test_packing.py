"""Packed messages: laid out alike whether their layout is remembered or not, and refused when they do not add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtd.errors import Malformed, TooLarge
from trtd.wire import packing

SIZES = st.lists(st.integers(0, 40), max_size=8)


def pack(frames: list[bytes]) -> bytes:
    """A message in one piece, of the length that was told."""
    parts, size_bytes = packing.pack_sized(frames)
    data = b"".join(parts)
    assert len(data) == size_bytes == packing.message_bytes(data)
    return data


@given(SIZES, st.binary(min_size=2, max_size=2))
def test_messages_of_the_same_sizes_keep_their_own_frames(sizes, fillings):
    """A layout that is used again carries the second message's frames, and each frame starts aligned."""
    messages = [[bytes([filling]) * size for size in sizes] for filling in fillings]
    data = b"".join(map(pack, messages))
    at = 0
    for message in messages:
        frames, at = packing.unpack(memoryview(data), at)
        assert [bytes(frame) for frame in frames] == message
        assert at % packing.ALIGNMENT_BYTES == 0
    assert at == len(data)


@pytest.mark.parametrize(
    "count", [packing.MAX_REMEMBERED_FRAMES, packing.MAX_REMEMBERED_FRAMES + 1, packing.MAX_FRAMES]
)
def test_long_messages_come_out_too(count):
    """Messages with more frames than are worth remembering are packed and read like the others."""
    message = [b"%d" % number for number in range(count)]
    frames, _ = packing.unpack(memoryview(pack(message)))
    assert [bytes(frame) for frame in frames] == message


def test_too_many_frames_are_not_packed():
    """A message that no reader would take is refused where it is made."""
    with pytest.raises(TooLarge, match=f"{packing.MAX_FRAMES + 1} frames"):
        packing.pack_sized([b""] * (packing.MAX_FRAMES + 1))


@given(SIZES, st.data())
def test_a_changed_table_is_malformed_or_another_split(sizes, data):
    """Whatever stands in the table, the frames lie within the message, or it is refused each time it comes."""
    message = bytearray(pack([bytes(size) for size in sizes]))
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] ^= data.draw(st.integers(1, 255))
    for _ in range(2):
        try:
            found = packing.unpack_first(memoryview(message), 0, len(message))
        except Malformed:
            continue
        assert found is None or sum(map(len, found[0])) <= len(message) - packing.HEAD.size
