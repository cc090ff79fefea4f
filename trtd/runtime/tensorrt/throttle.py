"""What the soft watermark does: above it the slots of a worker run one at a time, and give back what they can."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Throttle:
    """Lets runs go side by side while memory is low, and one after the other while it is high. Safe in any thread."""

    def __init__(self, is_high: Callable[[], bool]) -> None:
        self._is_high = is_high
        self._turn = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Wait for a turn where one is needed; whether it was. What began before the level rose runs on."""
        if not self._is_high():
            yield False
            return
        with self._turn:
            yield True
