"""What loaded models are promised, and the scratch memory that the models of one thread share.

A thread runs one batch at a time, so the contexts of all its models may use the same block. Blocks are as large as the
largest model that is loaded wants, which is why all models are loaded before the first slot is opened.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trtd.runtime.tensorrt.memory import DeviceMemory


@dataclass(slots=True, weakref_slot=True, eq=False)
class Promise:
    """What a loaded model is going to allocate.

    Attributes:
        slot_bytes: contexts, inputs and outputs of one slot.
        scratch_bytes: scratch memory that one slot needs; shared with the other models of its thread.
        slots_left: slots that are not open yet.
        growth_bytes: of one slot, for outputs whose size is known only after a run; not promised, but to be expected.
    """

    slot_bytes: int
    scratch_bytes: int
    slots_left: int
    growth_bytes: int = 0


@dataclass(slots=True, eq=False)
class ScratchBlock:
    """Scratch memory of one thread.

    Attributes:
        address: on the device.
        size_bytes: of it.
        users: models whose slots use it.
        lock: held while one of them runs, so that a slot which strays to another thread waits and spoils nothing.
    """

    address: int
    size_bytes: int
    users: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


class ScratchPool:
    """Promises and scratch memory of one worker. Safe in several threads."""

    def __init__(self, memory: DeviceMemory, slots: int) -> None:
        self._memory = memory
        self._slots = slots
        self._lock = threading.Lock()
        # A model that goes takes its promise along.
        self._promises: weakref.WeakSet[Promise] = weakref.WeakSet()
        self._blocks: dict[int, ScratchBlock] = {}

    def promise(self, slot_bytes: int, scratch_bytes: int, growth_bytes: int = 0) -> Promise:
        """Note what a model is going to need for each slot; it holds as long as somebody holds the promise."""
        made = Promise(slot_bytes, scratch_bytes, self._slots, growth_bytes)
        with self._lock:
            self._promises.add(made)
        return made

    @property
    def models(self) -> int:
        """How many are loaded."""
        with self._lock:
            return len(self._promises)

    @property
    def shared_bytes(self) -> int:
        """Scratch memory that each thread has, or is going to have, for the models that are loaded."""
        with self._lock:
            return self._largest()

    @property
    def promised_bytes(self) -> int:
        """What the models that are loaded are still going to allocate."""
        with self._lock:
            for_slots = sum(one.slot_bytes * one.slots_left for one in self._promises)
            return for_slots + self._largest() * max(0, self._slots - len(self._blocks))

    @property
    def growth_bytes(self) -> int:
        """What outputs of unknown size may come to, in all slots."""
        with self._lock:
            return sum(one.growth_bytes for one in self._promises) * self._slots

    def take(self, promise: Promise, what: str) -> ScratchBlock:
        """The calling thread's block, for a slot of the model with this promise.

        Raises:
            trtd.errors.OutOfMemory: watermark or device refused.
            trtd.runtime.cuda.CudaError: the device is not sound.
        """
        thread, user = threading.get_ident(), id(promise)
        with self._lock:
            block = self._blocks.get(thread)
            if block is not None and user not in block.users and block.size_bytes >= promise.scratch_bytes:
                block.users.add(user)
                return block
            size_bytes = max(self._largest(), promise.scratch_bytes)
        # A second slot of a model in one thread is meant for another thread, and gets a block of its own.
        address = self._memory.allocate(size_bytes, f"scratch memory of {what}")
        block = ScratchBlock(address, size_bytes, {user})
        with self._lock:
            self._blocks.setdefault(thread, block)
        return block

    def give_back(self, promise: Promise, block: ScratchBlock) -> None:
        """A slot is closed; the last one of a block gives it back."""
        with self._lock:
            block.users.discard(id(promise))
            is_idle = not block.users
            if is_idle:
                self._blocks = {thread: one for thread, one in self._blocks.items() if one is not block}
        if is_idle:
            self._memory.free(block.address)

    def _largest(self) -> int:
        return max((one.scratch_bytes for one in self._promises), default=0)
