"""Every byte of device memory that TensorRT lets us own: a byte-exact ledger over a capped pool of the driver.

`DeviceMemory` is ours and serves both TensorRT (through `make_allocator`) and the slots. It is thread-safe; its lock is
never held while anything else is called that could wait. Nothing here refers to a runtime, engine or context.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from trtd.core.cuda_faults import CudaClass
from trtd.core.watermark import DeviceLedger, LedgerState, Refused, Watermarks
from trtd.errors import OutOfMemory
from trtd.runtime import cuda
from trtd.runtime.tensorrt.recorder import Sink

ALIGNMENT_BYTES = 256
"""What every block of the driver has; TensorRT asks for 512 at most, which it has as well."""


class DeviceMemory:
    """Device memory under watermarks."""

    def __init__(self, pool: cuda.MemoryPool, watermarks: Watermarks, sink: Sink) -> None:
        self._pool = pool
        self._ledger = DeviceLedger(watermarks)
        self._lock = threading.Lock()
        self._stream = cuda.Stream()
        self._sink = sink
        self._is_closing = False
        self.refuse_nth: Callable[[int], bool] | None = None
        """For fault injection: told the number of each allocation, from 1; True refuses it."""

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
        with self._lock:
            refused = self._reserve(size_bytes)
        if refused is None:
            try:
                address = self._allocate(size_bytes, stream)
            except cuda.CudaError as error:
                with self._lock:
                    refused = self._ledger.cancel(size_bytes)
                if error.kind is not CudaClass.MEMORY:
                    raise
                cuda.forget_last_error()
            else:
                with self._lock:
                    self._ledger.settle(address, size_bytes)
                return address
        self._sink(
            "device_memory.refused",
            {"size_bytes": refused.size_bytes, "live_bytes": refused.live_bytes, "hard_bytes": refused.hard_bytes},
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
            held = self.state().live_bytes
            raise OutOfMemory(f"no {size_bytes} bytes of device memory for {what}, with {held} bytes held")
        return address

    def free(self, address: int, stream: Any = None) -> bool:
        """Give an address back once the stream has come so far; False for one that is not held.

        Raises:
            trtd.runtime.cuda.CudaError: the device is not sound.
        """
        with self._lock:
            is_held = self._ledger.release(address) is not None
            is_last = is_held and self._is_closing and not self._ledger.live_bytes
        if is_held:
            self._pool.free(address, self._stream.handle if stream is None else stream)
        if is_last:
            self._close()
        return is_held

    def state(self) -> LedgerState:
        """The ledger's figures."""
        with self._lock:
            return self._ledger.state()

    @property
    def hard_bytes(self) -> int:
        """The hard watermark; 0 for none."""
        return self._ledger.watermarks.hard_bytes

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

    def _close(self) -> None:
        self._stream.synchronize()
        self._pool.trim()
        self._pool.close()
        self._stream.close()

    def _reserve(self, size_bytes: int) -> Refused | None:
        state = self._ledger.state()
        if self.refuse_nth is not None and self.refuse_nth(state.allocations + state.refused_count + 1):
            # As if the device had no more.
            self._ledger.reserve(size_bytes)
            return self._ledger.cancel(size_bytes)
        return self._ledger.reserve(size_bytes)

    def _allocate(self, size_bytes: int, stream: Any) -> int:
        if stream is not None:
            return self._pool.allocate(size_bytes, stream)
        address = self._pool.allocate(size_bytes, self._stream.handle)
        self._stream.synchronize()
        return address


def passes_stream_first(module: ModuleType) -> bool:
    """Whether this version calls `allocate_async(size, alignment, stream, flags)`.

    That is what 10.x to 11.1 do, against their documentation; later ones pass flags before the stream. Found out by
    letting the base class call a probe; needs no device.
    """
    base: Any = module.IGpuAsyncAllocator
    seen: list[tuple[Any, ...]] = []

    # Made once for each module, see `_allocator_class`.
    class Probe(base):  # type: ignore[misc]  # the base class comes with the package
        def __init__(self) -> None:
            base.__init__(self)

        def allocate_async(self, *args: Any) -> int:
            seen.append(args)
            return 0

        def deallocate_async(self, *_: Any) -> bool:
            return True

        def reallocate(self, *_: Any) -> int:
            return 0

    flags, stream = 1, 77
    module.IGpuAllocator.allocate_async(Probe(), 11, ALIGNMENT_BYTES, flags, stream)
    return bool(seen) and seen[0][2:] == (stream, flags)


def make_allocator(module: ModuleType, memory: DeviceMemory, on_defect: Callable[[BaseException], None]) -> Any:
    """An allocator of a TensorRT module over `memory`. It refuses with the int 0 and never raises into native code.

    Args:
        module: whose base class.
        memory: where the bytes come from.
        on_defect: told of what would have been raised; neither blocks nor raises.
    """
    return _allocator_class(module)(memory, on_defect)


@functools.cache
def _allocator_class(module: ModuleType) -> Any:
    base: Any = module.IGpuAsyncAllocator
    stream_first = passes_stream_first(module)

    class Allocator(base):  # type: ignore[misc]  # the base class comes with the package
        def __init__(self, memory: DeviceMemory, on_defect: Callable[[BaseException], None]) -> None:
            base.__init__(self)
            self._memory = memory
            self._on_defect = on_defect

        def allocate_async(self, size: int, alignment: int, third: int, fourth: int) -> int:
            try:
                stream = third if stream_first else fourth
                address = self._memory.try_allocate(size, stream or None)
                if address and alignment and address % alignment:
                    self._memory.free(address, stream or None)
                    raise RuntimeError(f"the pool gave {address:#x}, which is not aligned to {alignment}")
            except BaseException as error:
                self._on_defect(error)
                return 0
            return address

        def deallocate_async(self, address: int, stream: int) -> bool:
            # True in any case: what is not held is counted by the ledger, and TensorRT can do nothing about it.
            try:
                if address:
                    self._memory.free(address, stream or None)
            except BaseException as error:
                self._on_defect(error)
            return True

        def reallocate(self, _address: int, _alignment: int, _size: int) -> int:
            # Not supported; the block stays valid and TensorRT asks for a new one.
            return 0

    return Allocator
