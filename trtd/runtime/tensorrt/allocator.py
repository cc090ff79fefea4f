"""TensorRT's view of our device memory: an allocator made from the base class of whichever version is loaded.

It refuses with the int 0, raises nothing into native code, and knows the order of arguments of its version. Where the
bytes come from and how they are counted is in `trtd.runtime.tensorrt.memory`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtd.runtime.tensorrt.memory import DeviceMemory

ALIGNMENT_BYTES = 256
"""What every block of the driver has; TensorRT asks for 512 at most, which it has as well."""


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
