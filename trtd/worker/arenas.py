"""Shared memory of clients in a worker: mapped when the router hands it over, unmapped with its last user.

An arena lives as long as something refers to it: this table, an input that lies in it, an area of a request. So a
request that runs keeps its memory, whatever the router says meanwhile, and nothing has to be counted. Used under one
lock, which `trtd.worker.loop` holds; what it hands out may be let go of in any thread.

The router has checked descriptor, seals and ranges. Size and ranges are checked here again; that the memory cannot
shrink under its readers is the seals' work.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from functools import partial
from typing import Any

import numpy as np

from trtd.errors import ArenaUnknown, Malformed
from trtd.observe import get_logger
from trtd.runtime.protocol import Runtime
from trtd.wire.arenas import ArenaRef

log = get_logger()

# Not `mmap.mmap`: before Python 3.13 it keeps a duplicate of the descriptor, and the clients of a tenant may have more
# arenas than a process may have descriptors.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
)  # fmt: skip
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FAILED = ctypes.c_void_p(-1).value


class Mapping:
    """One memfd in this process's memory, pinned by the runtime. Arrays made of it keep it alive."""

    def __init__(self, fd: int, size_bytes: int, runtime: Runtime) -> None:
        """Map it; the descriptor stays the caller's.

        Raises:
            OSError, ValueError: it has another size, or cannot be mapped.
        """
        self.address = 0
        actual_bytes = os.fstat(fd).st_size
        if actual_bytes != size_bytes:
            raise ValueError(f"it has {actual_bytes} bytes, not {size_bytes}")
        address = _libc.mmap(None, size_bytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
        if address == _MAP_FAILED:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        self.address = int(address)
        self._runtime = runtime
        memory = (ctypes.c_uint8 * size_bytes).from_address(self.address)
        self._bytes = np.frombuffer(memoryview(memory), np.uint8)
        runtime.pin(self._bytes)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """How numpy makes arrays whose base is this object."""
        return {"shape": self._bytes.shape, "typestr": "|u1", "data": (self.address, False), "version": 3}

    def __del__(self) -> None:
        if self.address:
            # Nothing of this object is kept: it is gone when the memory is.
            self._runtime.unpin(self._bytes, partial(_libc.munmap, self.address, self._bytes.nbytes))


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
    def address(self) -> int:
        """Of its first byte."""
        return self.arena.address + self.offset

    @property
    def memory(self) -> np.ndarray:
        """Its bytes, writable: a view of the arena's memory."""
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
