"""Messages of several frames as plain bytes, one after the other: on the stream to a worker, and in bundles of clients.

A message is a head `<IIQ` (magic, number of frames, bytes that follow the head), a table with the size of each frame
as `<Q`, and the frames. Table and frames are padded to 16 bytes, so that tensors stay aligned when their buffer is.

Pure: who reads and writes the bytes is left to `trtd.child.stream` and to the clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

from trtd.errors import Malformed, TooLarge
from trtd.wire.frames import frame_bytes

ALIGNMENT_BYTES = 16
MAGIC = 0x31707274
"""`trp1`, read as little endian."""
HEAD = Struct("<IIQ")
MAX_FRAMES = 4096
"""Most frames of one message: 64 requests of 33 tensors stay below it."""

_PADDING = [bytes(-rest % ALIGNMENT_BYTES) for rest in range(ALIGNMENT_BYTES)]
"""By what is left of a size when it is divided by the alignment."""
_TABLES = [Struct(f"<{count}Q") for count in range(2 * 64 + 2)]
"""Ready-made for what is usual: a header, and a frame or two for each of 64 requests."""


def pack(frames: Sequence[Any]) -> list[Any]:
    """The parts of one message, to be joined or to be written one after the other: see `pack_sized`."""
    return pack_sized(frames)[0]


def pack_sized(frames: Sequence[Any]) -> tuple[list[Any], int]:
    """The parts of one message, and how many bytes they have together.

    Args:
        frames: `bytes`, `memoryview`s or other objects of the buffer protocol; they are not copied.

    Raises:
        TooLarge: there are more than `MAX_FRAMES`.
    """
    count = len(frames)
    if count > MAX_FRAMES:
        raise TooLarge(f"a message has {count} frames, the most is {MAX_FRAMES}")
    sizes: list[int] = []
    parts: list[Any] = [b"", b""]
    following = (count + (count & 1)) * 8
    for frame in frames:
        size = len(frame) if type(frame) is bytes else frame_bytes(frame)
        sizes.append(size)
        parts.append(frame)
        rest = size % ALIGNMENT_BYTES
        if rest:
            parts.append(_PADDING[rest])
            size += ALIGNMENT_BYTES - rest
        following += size
    parts[0] = HEAD.pack(MAGIC, count, following)
    table = _table(count).pack(*sizes)
    parts[1] = table + _PADDING[8] if count & 1 else table
    return parts, HEAD.size + following


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
    position = at + HEAD.size
    if position > end:
        return None
    count, length = _read_head(data, at)
    stop = at + length
    if stop > end:
        return None
    sizes = _table(count).unpack_from(data, position)
    position += (count + (count & 1)) * 8
    frames = []
    for size in sizes:
        if size > stop - position:
            raise Malformed("the frames of a packed message are longer than the message")
        frames.append(data[position : position + size])
        position += size + -size % ALIGNMENT_BYTES
    if position != stop:
        raise Malformed("the frames of a packed message are shorter than the message")
    return frames, stop


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
    if magic != MAGIC or count > MAX_FRAMES or following % ALIGNMENT_BYTES or following < count * 8:
        raise Malformed("these bytes are no packed message")
    return count, HEAD.size + following


def _table(count: int) -> Struct:
    return _TABLES[count] if count < len(_TABLES) else Struct(f"<{count}Q")
