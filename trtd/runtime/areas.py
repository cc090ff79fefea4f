"""Where outputs go in the area of shared memory that a client gave for them: one rule, for runtimes and for answers."""

from __future__ import annotations

from collections.abc import Iterable

from trtd.wire.arenas import MIN_PLACED_BYTES, PLACE_ALIGNMENT_BYTES


def places(sizes: Iterable[int], area_bytes: int) -> list[int | None]:
    """Where each output begins in an area, one after the other, aligned; None for one that comes in a frame.

    Args:
        sizes: bytes of the outputs, in their order.
        area_bytes: what there is.
    """
    found: list[int | None] = []
    at = 0
    for size in sizes:
        if size < MIN_PLACED_BYTES or at + size > area_bytes:
            found.append(None)
            continue
        found.append(at)
        at += size + -size % PLACE_ALIGNMENT_BYTES
    return found
