"""PURE: which bytes of an arena are free, in use, or retired for ever.

First fit, so that the places at the start, whose pages are warm, are used again first. The memory itself is in
`trtd.client.memory`; when a place may be used again is decided in `trtd.client.exchange`.
"""

from __future__ import annotations

from bisect import bisect_right

from trtd.wire.arenas import PLACE_ALIGNMENT_BYTES


class Regions:
    """The regions of one arena, as offsets that are multiples of `PLACE_ALIGNMENT_BYTES`.

    Attributes:
        size_bytes: of the arena.
        used_bytes: in regions that were taken and not given back.
        retired_bytes: that no region will ever hold again.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.used_bytes = 0
        self.retired_bytes = 0
        self._used: dict[int, int] = {}
        self._free_offsets = [0]
        self._free_sizes = [size_bytes]

    def take(self, size_bytes: int) -> int | None:
        """The offset of a region of at least that size; None when there is no room."""
        needed = aligned(max(size_bytes, 1))
        index = 0
        for free in self._free_sizes:
            if free >= needed:
                break
            index += 1
        else:
            return None
        offset = self._free_offsets[index]
        if free == needed:
            del self._free_offsets[index], self._free_sizes[index]
        else:
            self._free_offsets[index] += needed
            self._free_sizes[index] -= needed
        self._used[offset] = needed
        self.used_bytes += needed
        return offset

    def give_back(self, offset: int) -> None:
        """The region that starts there is free again."""
        size = self._used.pop(offset)
        self.used_bytes -= size
        after = bisect_right(self._free_offsets, offset)
        if after < len(self._free_offsets) and offset + size == self._free_offsets[after]:
            size += self._free_sizes[after]
            del self._free_offsets[after], self._free_sizes[after]
        before = after - 1
        if before >= 0 and self._free_offsets[before] + self._free_sizes[before] == offset:
            self._free_sizes[before] += size
        else:
            self._free_offsets.insert(after, offset)
            self._free_sizes.insert(after, size)

    def retire(self, offset: int) -> None:
        """The region that starts there is never used again, because somebody may still write into it."""
        size = self._used.pop(offset)
        self.used_bytes -= size
        self.retired_bytes += size


def aligned(size_bytes: int) -> int:
    """The size with what has to be left free behind it."""
    return (size_bytes + PLACE_ALIGNMENT_BYTES - 1) // PLACE_ALIGNMENT_BYTES * PLACE_ALIGNMENT_BYTES
