"""A thread that pins and unpins shared memory of clients, so that nobody who serves requests waits for the driver.

To pin takes the driver about as long as to touch every page: for a large arena many batches. Until it is done inputs
from there are staged, which `trtd.runtime.tensorrt.pinned` decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from trtd.runtime.tensorrt.pinned import PinnedMemory

Job = Callable[[], None]

PATIENCE_S = 1.0
"""With a driver that does not come back, when it is closed."""


class Pinner:
    """Pins in the order asked for. Never waits; may be asked in finalizers, which run anywhere."""

    def __init__(self, pinned: PinnedMemory) -> None:
        self._pinned = pinned
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        # Addresses to be pinned of which nobody has let go meanwhile. A range has its address for itself until `then`.
        self._wanted: set[int] = set()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def pin(self, address: int, size_bytes: int) -> None:
        """Pin whole pages, soon."""
        self._wanted.add(address)
        self._jobs.put(lambda: self._pin(address, size_bytes))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pinner", daemon=True)
            self._thread.start()

    def unpin(self, address: int, then: Job) -> None:
        """The opposite of `pin`, soon; `then` is called when the driver knows nothing of the memory any more."""
        self._wanted.discard(address)

        def unpin() -> None:
            self._pinned.unpin(address)
            then()

        if self._is_closed:
            unpin()
        else:
            self._jobs.put(unpin)

    def close(self) -> None:
        """Do what is waiting; what comes later is done by whoever asks."""
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join(PATIENCE_S)
        self._is_closed = True

    def _pin(self, address: int, size_bytes: int) -> None:
        if address in self._wanted:
            self._wanted.discard(address)
            self._pinned.pin(address, size_bytes)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            # An idle thread must not hold what its last job did.
            del job
