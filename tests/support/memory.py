"""Shared memory as a client makes it, the places in it, and what a process has mapped."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import numpy as np

from trtd.wire.arenas import ArenaRef, encode_ref

SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
MEMFD_NAME = "trtd-test-arena"


class ClientMemory:
    """A sealed memfd, mapped by the client that is this test."""

    def __init__(self, size_bytes: int = 1 << 20, key: int = 7) -> None:
        self.key = key
        self.size_bytes = size_bytes
        self.fd = os.memfd_create(MEMFD_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size_bytes)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)

    def __enter__(self) -> ClientMemory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def duplicate(self) -> int:
        """A descriptor to be handed over."""
        return os.dup(self.fd)

    def write(self, array: np.ndarray, offset: int = 0) -> bytes:
        """Put an array there, and give the frame that names it."""
        os.pwrite(self.fd, array.tobytes(), offset)
        return self.ref(offset, array.nbytes)

    def read(self, offset: int, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        """What lies there, as an array."""
        wanted = np.dtype(dtype)
        return np.frombuffer(os.pread(self.fd, wanted.itemsize * int(np.prod(shape)), offset), wanted).reshape(shape)

    def ref(self, offset: int, size_bytes: int) -> bytes:
        """The frame that names a place."""
        return encode_ref(ArenaRef(self.key, offset, size_bytes))


def mapped_count(name: str = MEMFD_NAME, maps: Path = Path("/proc/self/maps")) -> int:
    """How many mappings of memfds of that name a process has; this one, unless told otherwise."""
    return maps.read_text(encoding="utf-8").count(f"memfd:{name}")


def open_fds() -> int:
    """How many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
