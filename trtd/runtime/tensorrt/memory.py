"""Every byte of device memory that is ours to give: a byte-exact ledger over a capped pool of the driver.

`DeviceMemory` serves the slots, and TensorRT through `trtd.runtime.tensorrt.allocator`. It is thread-safe; its lock is
never held while anything else is called that could wait. Nothing here refers to a runtime, engine or context.
"""

from __future__ import annotations

import threading
from typing import Any

from trtd.core.cuda_faults import CudaClass
from trtd.core.watermark import DeviceLedger, LedgerState, Level, Watermarks
from trtd.errors import OutOfMemory
from trtd.runtime import cuda
from trtd.runtime.tensorrt.recorder import Sink


class DeviceMemory:
    """Device memory under watermarks."""

    def __init__(self, pool: cuda.MemoryPool, watermarks: Watermarks, sink: Sink) -> None:
        self._pool = pool
        self._ledger = DeviceLedger(watermarks)
        self._lock = threading.Lock()
        self._stream = cuda.Stream()
        self._sink = sink
        self._told = Level.LOW
        self._acting = threading.local()
        self._configured = watermarks
        self._is_closing = False

    def act_for(self, owner: str) -> None:
        """What the calling thread allocates from now on is this model's; TensorRT does not say whose it is."""
        self._acting.owner = owner

    def bound(self, hard_bytes: int) -> None:
        """Set a hard watermark where none is configured; 0 takes it away again."""
        if not self._configured.hard_bytes:
            soft_bytes = self._configured.soft_bytes
            with self._lock:
                self._ledger.watermarks = Watermarks(soft_bytes, max(hard_bytes, soft_bytes) if hard_bytes else 0)

    def try_allocate(self, size_bytes: int, stream: Any = None) -> int:
        """An address, or 0 where watermark or device refuse; one event tells of that.

        Args:
            size_bytes: 0 gives 0.
            stream: on which it is used first; None makes it usable anywhere at once.

        Raises:
            trtd.runtime.cuda.CudaError: the device is not sound.
        """
        if size_bytes <= 0:
            return 0
        owner = getattr(self._acting, "owner", "")
        with self._lock:
            refused = self._ledger.reserve(size_bytes, owner)
        if refused is None:
            try:
                address = self._allocate(size_bytes, stream)
            except cuda.CudaError as error:
                with self._lock:
                    refused = self._ledger.cancel(size_bytes, owner)
                if error.kind is not CudaClass.MEMORY:
                    raise
                cuda.forget_last_error()
            else:
                with self._lock:
                    self._ledger.settle(address, size_bytes, owner)
                    level = self._ledger.level
                self._tell_level(level)
                return address
        self._sink(
            "device_memory.refused",
            {
                "model": owner,
                "size_bytes": refused.size_bytes,
                "live_bytes": refused.live_bytes,
                "hard_bytes": refused.hard_bytes,
            },
        )
        return 0

    def allocate(self, size_bytes: int, what: str) -> int:
        """An address that can be used anywhere at once.

        Raises:
            trtd.errors.OutOfMemory: watermark or device refused; it names what it was for.
            trtd.runtime.cuda.CudaError: the device is not sound.
        """
        address = self.try_allocate(size_bytes)
        if not address:
            raise OutOfMemory(f"no {size_bytes} bytes of device memory for {what}, {self._told_held()}")
        return address

    def _told_held(self) -> str:
        held = f"with {self.state().live_bytes} bytes held"
        if not self.is_hard_derived:
            return held
        return f"{held}; the watermark of {self.hard_bytes} bytes was derived, tensorrt.hard_bytes sets another"

    def free(self, address: int, stream: Any = None) -> bool:
        """Give an address back once the stream has come so far; False for one that is not held.

        Raises:
            trtd.runtime.cuda.CudaError: the device is not sound.
        """
        with self._lock:
            is_held = self._ledger.release(address) is not None
            is_last = is_held and self._is_closing and not self._ledger.live_bytes
            level = self._ledger.level
        if is_held:
            self._pool.free(address, self._stream.handle if stream is None else stream)
            self._tell_level(level)
        if is_last:
            self._close()
        return is_held

    def state(self) -> LedgerState:
        """The ledger's figures."""
        with self._lock:
            return self._ledger.state()

    @property
    def is_high(self) -> bool:
        """Whether the soft watermark was passed, and not yet left behind again."""
        return self._ledger.level is Level.HIGH

    @property
    def hard_bytes(self) -> int:
        """The hard watermark in force; 0 for none."""
        return self._ledger.watermarks.hard_bytes

    @property
    def configured_hard_bytes(self) -> int:
        """The one of the configuration; 0 for none."""
        return self._configured.hard_bytes

    @property
    def is_hard_derived(self) -> bool:
        """Whether the one in force follows from what the models need."""
        return self.hard_bytes != self.configured_hard_bytes

    def pool_bytes(self) -> tuple[int, int]:
        """Bytes that the driver's pool has in use and reserved."""
        return self._pool.used_bytes()

    def close(self) -> None:
        """Give all back to the device: at once, or with the last block, which an engine may still hold."""
        with self._lock:
            is_idle = not self._is_closing and not self._ledger.live_bytes
            self._is_closing = True
        if is_idle:
            self._close()

    def _tell_level(self, level: Level) -> None:
        if level is not self._told:
            self._told = level
            fields = {"level": str(level), "soft_bytes": self._ledger.watermarks.soft_bytes}
            self._sink("device_memory.level_changed", {**fields, "live_bytes": self._ledger.live_bytes})

    def _close(self) -> None:
        self._stream.synchronize()
        self._pool.trim()
        self._pool.close()
        self._stream.close()

    def _allocate(self, size_bytes: int, stream: Any) -> int:
        if stream is not None:
            return self._pool.allocate(size_bytes, stream)
        address = self._pool.allocate(size_bytes, self._stream.handle)
        self._stream.synchronize()
        return address
