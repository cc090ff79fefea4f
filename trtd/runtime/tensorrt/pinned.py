"""Shared memory of clients that the device copies from by itself.

No CUDA here: what registers memory with the driver is an argument. A refusal costs speed and nothing else, so it is
told once, and inputs from that memory are staged as all others are.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable

from trtd.runtime.tensorrt.recorder import Sink


class PinnedMemory:
    """What is pinned now. Safe in several threads."""

    def __init__(self, register: Callable[[int, int], str], unregister: Callable[[int], None], sink: Sink) -> None:
        """Start empty.

        Args:
            register: pins address and size; gives the reason of a refusal, else an empty text. Never raises.
            unregister: the opposite, by address; likewise.
            sink: is told of the first refusal.
        """
        self._register = register
        self._unregister = unregister
        self._sink = sink
        self._was_refused = False
        # Finalizers unpin, and may run anywhere: also inside of `pin`.
        self._lock = threading.RLock()
        self._sizes: dict[int, int] = {}
        self._starts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self._sizes)

    def pin(self, address: int, size_bytes: int) -> None:
        """Pin whole pages; where that is refused, the memory is never held."""
        reason = self._register(address, size_bytes)
        with self._lock:
            if not reason:
                self._sizes[address] = size_bytes
                self._starts = tuple(sorted(self._sizes))
                return
            is_first, self._was_refused = not self._was_refused, True
        if is_first:
            self._sink("arena.pin_refused", {"size_bytes": size_bytes, "cause": reason})

    def unpin(self, address: int) -> None:
        """The opposite of `pin`; nothing where that was refused."""
        with self._lock:
            if self._sizes.pop(address, None) is None:
                return
            self._starts = tuple(sorted(self._sizes))
        self._unregister(address)

    def holds(self, address: int, size_bytes: int) -> bool:
        """Whether all of this memory is pinned; its owner keeps it so."""
        starts = self._starts
        place = bisect_right(starts, address) - 1
        if place < 0:
            return False
        return address + size_bytes <= starts[place] + self._sizes.get(starts[place], 0)
