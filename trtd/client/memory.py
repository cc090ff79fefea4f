"""SHELL: shared memory of this process, and arrays in it that hold their place for as long as they live.

A region is given back by the death of the last array that lies in it, whoever holds it, also after the client was
closed: the mapping lives as long as an array does. Which arena a region is taken from is for `trtd.client.arenas`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from collections import deque
from typing import Any

import numpy as np

from trtd.client.regions import Regions
from trtd.wire.arenas import ArenaRef

# Before 3.13 a mapping keeps a duplicate of the descriptor for as long as it lives.
_WITHOUT_FD: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Arena:
    """A sealed memfd, mapped into this process.

    Attributes:
        number: by which the router answers to the offer of it.
        key: by which requests name it; None while the router has not accepted it on the present connection.
        is_offered: whether it was offered on the present connection.
        regions: its places.
        used_at: instant at which a region was last taken, in monotonic seconds.
        area_bytes: in areas that are not retired.
        ended: offsets of regions that nobody holds any more, and the size of each that was an area.
    """

    def __init__(self, number: int, size_bytes: int, now: float) -> None:
        """Make one of a multiple of the page size.

        Raises:
            OSError: the system has no descriptor or no memory for it.
        """
        self.number = number
        self.key: int | None = None
        self.is_offered = False
        self.regions = Regions(size_bytes)
        self.used_at = now
        self.area_bytes = 0
        self.ended: deque[tuple[int, int]] = deque()
        self.fd = os.memfd_create("trtd-arena", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, size_bytes)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
            self._bytes = np.frombuffer(mmap.mmap(self.fd, size_bytes, **_WITHOUT_FD), np.uint8)
        except (OSError, ValueError):
            self.close()
            raise
        self.address = self._bytes.ctypes.data

    @property
    def size_bytes(self) -> int:
        """Of the whole."""
        return self.regions.size_bytes

    def offset_of(self, address: int, size_bytes: int) -> int | None:
        """Where the bytes at this address lie in the arena; None when they do not."""
        offset = address - self.address
        return offset if 0 <= offset <= self.size_bytes - size_bytes else None

    def take(self, size_bytes: int, now: float, *, is_area: bool) -> Region | None:
        """A region; None when there is no room."""
        offset = self.regions.take(size_bytes)
        if offset is None:
            return None
        self.used_at = now
        if is_area:
            self.area_bytes += size_bytes
        return Region(self, offset, size_bytes, is_area=is_area)

    def take_back(self) -> None:
        """Make room of what nobody holds any more."""
        while self.ended:
            offset, area_bytes = self.ended.popleft()
            self.regions.give_back(offset)
            self.area_bytes -= area_bytes

    def retire(self, region: Region) -> None:
        """Never use the bytes of this area again."""
        region.is_retired = True
        self.regions.retire(region.offset)
        self.area_bytes -= region.size_bytes

    def close(self) -> None:
        """Offer it no more. Arrays in it live on. Repeatable."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()


class Region:
    """A place in an arena; it ends with the last array that was made of it.

    Attributes:
        arena: where it is.
        offset: of its first byte.
        size_bytes: as asked for.
        is_area: whether it waits for outputs, or holds some.
        is_retired: whether its bytes must never be used again.
    """

    __slots__ = ("arena", "is_area", "is_retired", "offset", "size_bytes")

    def __init__(self, arena: Arena, offset: int, size_bytes: int, *, is_area: bool) -> None:
        self.arena = arena
        self.offset = offset
        self.size_bytes = size_bytes
        self.is_area = is_area
        self.is_retired = False

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """How NumPy makes an array of it whose base it is."""
        data = (self.arena.address + self.offset, False)
        return {"version": 3, "shape": (self.size_bytes,), "typestr": "|u1", "data": data}

    @property
    def key(self) -> int | None:
        """Of its arena, None where requests cannot name that at the moment."""
        return self.arena.key

    def ref(self, key: int) -> ArenaRef:
        """How requests name it."""
        return ArenaRef(key, self.offset, self.size_bytes)

    def array(self) -> np.ndarray[Any, Any]:
        """All its bytes."""
        return np.asarray(self)

    def __del__(self) -> None:
        # Any thread may come here at any time, in the middle of a garbage collection too: no lock may be taken.
        if not self.is_retired:
            self.arena.ended.append((self.offset, self.size_bytes if self.is_area else 0))
