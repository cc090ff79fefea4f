"""Memory for outputs whose size is known only after the run: TensorRT asks for it while it runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trtd.runtime.tensorrt.allocator import ALIGNMENT_BYTES

if TYPE_CHECKING:
    from trtd.runtime.tensorrt.memory import DeviceMemory


class GrowingOutputs:
    """One block for each such output of one slot; it grows with the largest answer seen and is kept between runs."""

    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory
        self._blocks: dict[str, tuple[int, int]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Of the last run."""

    def provide(self, name: str, size_bytes: int, stream: int) -> int:
        """An address for an output of this size; never null for size 0, null when memory does not suffice."""
        address, held = self._blocks.get(name, (0, 0))
        if address and size_bytes <= held:
            return address
        if address:
            del self._blocks[name]
            self._memory.free(address, stream or None)
        wanted = max(size_bytes, ALIGNMENT_BYTES)
        address = self._memory.try_allocate(wanted, stream or None)
        if address:
            self._blocks[name] = (address, wanted)
        return address

    def address(self, name: str) -> int:
        """Where the output of the last run lies."""
        return self._blocks[name][0]

    def close(self) -> None:
        """Give the blocks back."""
        for address, _ in self._blocks.values():
            self._memory.free(address)
        self._blocks.clear()


def make_output_allocator(
    module: ModuleType, outputs: GrowingOutputs, on_defect: Callable[[BaseException], None]
) -> Any:
    """TensorRT's view of `outputs`. It refuses with the int 0 and never raises into native code."""
    return _output_allocator_class(module)(outputs, on_defect)


@functools.cache
def _output_allocator_class(module: ModuleType) -> Any:
    base: Any = module.IOutputAllocator

    class OutputAllocator(base):  # type: ignore[misc]  # the base class comes with the package
        def __init__(self, outputs: GrowingOutputs, on_defect: Callable[[BaseException], None]) -> None:
            base.__init__(self)
            self._outputs = outputs
            self._on_defect = on_defect

        def reallocate_output(self, name: str, _memory: int, size: int, _alignment: int) -> int:
            return self._provide(name, size, 0)

        def reallocate_output_async(self, name: str, _memory: int, size: int, _alignment: int, stream: int) -> int:
            return self._provide(name, size, stream)

        def notify_shape(self, name: str, shape: Any) -> None:
            try:
                self._outputs.shapes[name] = tuple(shape)
            except BaseException as error:
                self._on_defect(error)

        def _provide(self, name: str, size: int, stream: int) -> int:
            try:
                return self._outputs.provide(name, size, stream)
            except BaseException as error:
                self._on_defect(error)
                return 0

    return OutputAllocator
