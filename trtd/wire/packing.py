"""Messages of several frames as plain bytes, one after the other: on the stream to a worker, and in bundles of clients.

A message is a head `<IIQ` (magic, number of frames, bytes that follow the head), a table with the size of each frame
as `<Q`, and the frames. Table and frames are padded to 16 bytes, so that tensors stay aligned when their buffer is.

Pure: who reads and writes the bytes is left to `trtd.child.stream` and to the clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Any

from trtd.errors import Malformed, TooLarge

ALIGNMENT_BYTES = 16
MAGIC = 0x31707274
"""`trp1`, read as little endian."""
HEAD = Struct("<IIQ")
MAX_FRAMES = 32_768
"""Most frames of one message: 64 requests with as many tensors as travel stay below it."""
MAX_REMEMBERED_FRAMES = 2 * 64 + 2
"""Longer messages are laid out anew each time: a header, and a frame or two for each of 64 requests are usual."""

COPIED_BYTES = 16 * 1024
"""Of messages that are laid out alike, those up to this size are copied apart."""

_SIZE_BYTES = 8
OVERHEAD_BYTES = _SIZE_BYTES + ALIGNMENT_BYTES
"""What a frame takes at most beside its own bytes."""


def pack_sized(frames: Sequence[Any]) -> tuple[list[Any], int]:
    """The parts of one message, to be joined or to be written one after the other, and their bytes together.

    Args:
        frames: `bytes` or other objects of the buffer protocol whose length is in bytes; they are not copied.

    Raises:
        TooLarge: there are more than `MAX_FRAMES`.
    """
    count = len(frames)
    layout = lay_out if count <= MAX_REMEMBERED_FRAMES else lay_out.__wrapped__
    start, paddings, size_bytes = layout(tuple(map(len, frames)))
    parts: list[Any] = [start] * (1 + 2 * count)
    parts[1::2] = frames
    parts[2::2] = paddings
    return parts, size_bytes


def message_bytes(data: Any, at: int = 0) -> int | None:
    """How long the message is that starts at `at`; None when there is too little of it to tell.

    Raises:
        Malformed: no message starts there.
    """
    return None if len(data) - at < HEAD.size else _read_head(data, at)[1]


def unpack_first(data: memoryview, at: int, end: int) -> tuple[list[memoryview], int] | None:
    """The frames of the message that starts at `at`, as views, and where the next one starts; None if it is not whole.

    Args:
        data: what came.
        at: where the message starts.
        end: how far the data is valid.

    Raises:
        Malformed: no message starts there, or its table does not add up.
    """
    if at + HEAD.size > end:
        return None
    count, length = _read_head(data, at)
    stop = at + length
    if stop > end:
        return None
    locate = _locate if count <= MAX_REMEMBERED_FRAMES else _locate.__wrapped__
    places = locate(bytes(data[at : at + HEAD.size + _table_bytes(count)]))
    return list(map(data[at:stop].__getitem__, places)), stop


def unpack_alike(data: memoryview) -> list[list[Any]] | None:
    """The frames of messages that follow one another and are all laid out as the first one is; None where they are not.

    They are bytes of their own where the messages are small, which costs less than a view of each, and keeps no buffer.

    Raises:
        Malformed: no message starts the data, or its table does not add up.
    """
    if len(data) < HEAD.size:
        return None
    count, length = _read_head(data, 0)
    if len(data) % length or count > MAX_REMEMBERED_FRAMES:
        return None
    size = HEAD.size + _table_bytes(count)
    start = bytes(data[:size])
    if length > COPIED_BYTES:
        return _views_alike(data, length, start)
    messages = []
    for each, *frames in _splitter(start).iter_unpack(data):
        if each != start:
            return None
        messages.append(frames)
    return messages


def _views_alike(data: memoryview, length: int, start: bytes) -> list[list[Any]] | None:
    starts = range(0, len(data), length)
    if b"".join([data[at : at + len(start)] for at in starts]) != start * len(starts):
        return None
    places = _locate(start)
    return [list(map(data[at : at + length].__getitem__, places)) for at in starts]


def unpack(data: memoryview, at: int = 0) -> tuple[list[memoryview], int]:
    """The same of data that has to hold the whole message.

    Raises:
        Malformed: as above, or the message is not whole.
    """
    found = unpack_first(data, at, len(data))
    if found is None:
        raise Malformed("the packed message is not whole")
    return found


def _read_head(data: Any, at: int) -> tuple[int, int]:
    """Number of frames, and bytes of the whole message."""
    magic, count, following = HEAD.unpack_from(data, at)
    if magic != MAGIC or count > MAX_FRAMES or following % ALIGNMENT_BYTES or following < count * _SIZE_BYTES:
        raise Malformed("these bytes are no packed message")
    return count, HEAD.size + following


def _table_bytes(count: int) -> int:
    return _SIZE_BYTES * (count + (count & 1))


# Most messages are laid out like one before: the same models and shapes, as many requests.


@lru_cache
def lay_out(sizes: tuple[int, ...]) -> tuple[bytes, list[bytes], int]:
    """Head and table of a message, what fills up each frame, and the bytes of it all.

    Raises:
        TooLarge: see `pack_sized`.
    """
    count = len(sizes)
    if count > MAX_FRAMES:
        raise TooLarge(f"a message has {count} frames, the most is {MAX_FRAMES}")
    paddings = [bytes(-size % ALIGNMENT_BYTES) for size in sizes]
    following = _table_bytes(count) + sum(sizes) + sum(map(len, paddings))
    table = Struct(f"<{count}Q").pack(*sizes).ljust(_table_bytes(count), b"\0")
    return HEAD.pack(MAGIC, count, following) + table, paddings, HEAD.size + following


@lru_cache
def _locate(start: bytes) -> list[slice]:
    """Where the frames of a message are, counted from its start, by its head and table.

    Raises:
        Malformed: they do not add up.
    """
    count, stop = _read_head(start, 0)
    position = len(start)
    places = []
    for size in Struct(f"<{count}Q").unpack_from(start, HEAD.size):
        if size > stop - position:
            raise Malformed("the frames of a packed message are longer than the message")
        places.append(slice(position, position + size))
        position += size + -size % ALIGNMENT_BYTES
    if position != stop:
        raise Malformed("the frames of a packed message are shorter than the message")
    return places


@lru_cache
def _splitter(start: bytes) -> Struct:
    """Takes a message apart into head and table as one, and its frames.

    Raises:
        Malformed: as `_locate`.
    """
    _, length = _read_head(start, 0)
    form = f"<{len(start)}s"
    at = len(start)
    for place in _locate(start):
        form += f"{place.start - at}x{place.stop - place.start}s"
        at = place.stop
    return Struct(f"{form}{length - at}x")
