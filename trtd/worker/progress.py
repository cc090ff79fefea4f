"""How far a worker is: the second of its life signs, which a stuck batch stops although the interpreter goes on."""

from __future__ import annotations

import threading


class Progress:
    """Counts batches. Safe in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._running: set[int] = set()

    @property
    def is_running(self) -> bool:
        """Whether a batch runs at the moment."""
        return bool(self._running)

    def begin(self) -> int:
        """A batch is about to run.

        Returns:
            Its number, for `end`.
        """
        with self._lock:
            self._begun += 1
            self._running.add(self._begun)
            return self._begun

    def end(self, number: int) -> None:
        """The batch has run, whatever came of it."""
        with self._lock:
            self._running.discard(number)

    def read(self) -> tuple[int, int]:
        """Progress and batches in flight.

        Progress is the number of batches completed without a gap: one that is stuck holds it up, even while other slots
        go on.
        """
        with self._lock:
            oldest = min(self._running, default=self._begun + 1)
            return oldest - 1, len(self._running)
