"""Memory for a long message that comes piece by piece: about as much as has come, whatever its sender says of its size.

A buffer of the whole size would be taken, and filled with zeros, for a message of which nothing more may ever come.
"""

from __future__ import annotations

import mmap

STEP_BYTES = 1024 * 1024
"""Messages up to this size get all their memory at once, as soon as their first bytes were more than fit elsewhere."""
GROWTH = 4
"""By how much a longer one's memory grows each time it is full."""
MAPPED_FROM_BYTES = 16 * 1024 * 1024
"""From this size on the kernel is asked for the whole, and gives each page when it is first written. Smaller ones are
faster from the allocator, which has used their pages before: measured at 4 MiB, a fifth of the time."""

_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def grow(data: memoryview, filled: int, size: int, first_bytes: int = STEP_BYTES) -> memoryview:
    """A larger place for a message of `size` bytes, `filled` of which stand at the beginning of `data`.

    Args:
        data: the place until now; it may be any.
        filled: how many bytes have come.
        size: of the whole message, more than `filled`.
        first_bytes: how large the first place is.

    Raises:
        OSError: there is no such memory.
    """
    if filled < first_bytes and size > first_bytes:
        new = memoryview(bytearray(max(first_bytes, filled)))
    elif size >= MAPPED_FROM_BYTES:
        new = memoryview(mmap.mmap(-1, size, flags=_FLAGS))
    else:
        new = memoryview(bytearray(min(size, max(STEP_BYTES, GROWTH * filled))))
    new[:filled] = data[:filled]
    return new


def resident_bytes(data: memoryview, filled: int) -> int:
    """How much memory such a place really takes, with so many bytes in it."""
    return filled if isinstance(data.obj, mmap.mmap) else len(data)
