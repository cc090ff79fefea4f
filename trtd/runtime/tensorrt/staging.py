"""Pinned host memory of one worker, bounded: every slot has a part of its own for as long as it lives."""

from __future__ import annotations

import threading

from trtd.core.cuda_faults import CudaClass
from trtd.errors import OutOfMemory
from trtd.runtime import cuda


class StagingPool:
    """Hands out pinned buffers until the bound is reached. Safe in several threads."""

    def __init__(self, limit_bytes: int) -> None:
        """Start empty.

        Args:
            limit_bytes: most bytes at a time; 0 for no bound.
        """
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._held = 0

    @property
    def held_bytes(self) -> int:
        """Bytes in use."""
        return self._held

    def take(self, size_bytes: int, what: str) -> cuda.PinnedBuffer:
        """A buffer.

        Raises:
            trtd.errors.OutOfMemory: the bound or the host refused.
        """
        with self._lock:
            if self._limit and self._held + size_bytes > self._limit:
                raise OutOfMemory(
                    f"{what} needs {size_bytes} bytes of pinned staging beside {self._held} bytes held; "
                    f"tensorrt.staging_bytes is {self._limit}"
                )
            self._held += size_bytes
        try:
            return cuda.PinnedBuffer(size_bytes)
        except cuda.CudaError as error:
            with self._lock:
                self._held -= size_bytes
            if error.kind is CudaClass.MEMORY:
                cuda.forget_last_error()
                raise OutOfMemory(f"the host has no {size_bytes} bytes to pin for {what}") from error
            raise

    def give_back(self, buffer: cuda.PinnedBuffer) -> None:
        """A buffer is not used any more."""
        size_bytes = buffer.size_bytes
        buffer.close()
        with self._lock:
            self._held -= size_bytes
