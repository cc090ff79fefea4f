"""Shared memory of clients in a worker: mapped when the router hands it over, unmapped with its last user.

An arena lives as long as something refers to it: this table, an input that lies in it, an area of a request. So a
request that runs keeps its memory, whatever the router says meanwhile, and nothing has to be counted. Used under one
lock, which `trtd.worker.loop` holds; what it hands out may be let go of in any thread.

The router has checked descriptor, seals and ranges. Size and ranges are checked here again; that the memory cannot
shrink under its readers is the seals' work.
"""

from __future__ import annotations

import mmap
import os
import sys
from typing import Any

import numpy as np

from trtd.errors import ArenaUnknown, Malformed
from trtd.observe import get_logger
from trtd.runtime.protocol import Runtime
from trtd.wire.arenas import ArenaRef

log = get_logger()

# Before 3.13 a mapping keeps a duplicate of the descriptor.
_WITHOUT_FD: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


class Mapping:
    """One memfd in this process's memory, pinned by the runtime. Arrays made of it keep it alive."""

    def __init__(self, fd: int, size_bytes: int, runtime: Runtime) -> None:
        """Map it; the descriptor stays the caller's.

        Raises:
            OSError, ValueError: it has another size, or cannot be mapped.
        """
        actual_bytes = os.fstat(fd).st_size
        if actual_bytes != size_bytes:
            raise ValueError(f"it has {actual_bytes} bytes, not {size_bytes}")
        self._runtime = runtime
        self._map = mmap.mmap(fd, size_bytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, **_WITHOUT_FD)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self.address = int(self._bytes.ctypes.data)
        runtime.pin(self._bytes)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """How numpy makes arrays whose base is this object: not the mmap, which would not outlive its unpinning."""
        return {"shape": self._bytes.shape, "typestr": "|u1", "data": (self.address, False), "version": 3}

    def __del__(self) -> None:
        if hasattr(self, "_bytes"):
            self._runtime.unpin(self._bytes)


class Arena:
    """One arena.

    Attributes:
        key: by which requests name it.
        memory: all of it.
        is_open: whether the router that it came from still knows it. Outputs for another one are not written into it.
    """

    __slots__ = ("_readable", "address", "is_open", "key", "memory")

    def __init__(self, key: int, mapping: Mapping) -> None:
        self.key = key
        self.memory = np.asarray(mapping)
        self.address = mapping.address
        self.is_open = True
        self._readable = self.memory.data.toreadonly()

    def view(self, offset: int, size_bytes: int) -> memoryview:
        """Bytes to be read; the range was checked."""
        return self._readable[offset : offset + size_bytes]


class Area:
    """A range of an arena into which outputs of one request may be written."""

    __slots__ = ("arena", "offset", "size_bytes")

    def __init__(self, arena: Arena, offset: int, size_bytes: int) -> None:
        self.arena = arena
        self.offset = offset
        self.size_bytes = size_bytes

    @property
    def memory(self) -> np.ndarray:
        """Its bytes, writable."""
        return self.arena.memory[self.offset : self.offset + self.size_bytes]


class Arenas:
    """All that the present router has handed over."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._arenas: dict[int, Arena] = {}
        self._failed: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._arenas)

    def open(self, key: int, size_bytes: int, fd: int) -> None:
        """Map an arena; the descriptor is closed whatever happens. A failure meets the requests that name it."""
        self.close(key)
        try:
            mapping = Mapping(fd, size_bytes, self._runtime)
        except (OSError, ValueError, OverflowError) as error:
            log.warning("worker.arena_failed", size_bytes=size_bytes, error=str(error))
            self._failed[key] = str(error)
        else:
            self._arenas[key] = Arena(key, mapping)
        finally:
            os.close(fd)

    def close(self, key: int) -> None:
        """No request will name it any more."""
        self._failed.pop(key, None)
        arena = self._arenas.pop(key, None)
        if arena is not None:
            arena.is_open = False

    def clear(self) -> None:
        """Forget all: another router makes its own keys."""
        for key in list(self._arenas):
            self.close(key)
        self._failed.clear()

    def find(self, ref: ArenaRef) -> Arena:
        """The arena of a reference whose range lies in it.

        Raises:
            trtd.errors.ArenaUnknown: there is none; the client sends the tensors in frames then.
            trtd.errors.Malformed: the range leaves it.
        """
        arena = self._arenas.get(ref.key)
        if arena is None:
            raise ArenaUnknown(f"the worker has no such shared memory{self._why(ref.key)}")
        if ref.offset + ref.size_bytes > arena.memory.nbytes:
            raise Malformed(
                f"the place in an arena ends at {ref.offset + ref.size_bytes}, the arena at {arena.memory.nbytes}"
            )
        return arena

    def _why(self, key: int) -> str:
        why = self._failed.get(key)
        return "" if why is None else f": it could not map it: {why}"
