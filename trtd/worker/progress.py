"""How far a worker is: the second of its life signs, which a stuck batch stops although the interpreter goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Progress:
    """Counts batches. Safe in several threads.

    Args:
        on_woken: called by the thread that begins the first batch after `rest`, before that runs.
    """

    def __init__(self, on_woken: Callable[[], None] = lambda: None) -> None:
        self._on_woken = on_woken
        self._is_resting = False
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
            number = self._begun
            self._running.add(number)
            was_resting, self._is_resting = self._is_resting, False
        if was_resting:
            self._on_woken()
        return number

    def rest(self, since: tuple[int, int]) -> bool:
        """Have `on_woken` called when the next batch begins, unless one has begun since `read` gave this."""
        with self._lock:
            self._is_resting = not self._running and self._begun == since[0]
            return self._is_resting

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
