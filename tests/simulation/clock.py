"""Virtual time: one heap of things to do, one random source, no wall clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any


class Clock:
    """Runs scheduled calls in the order of their instants; those of one instant in the order of their scheduling."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.events = 0
        self.mean_delay_s = 0.0005
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0

    def at(self, instant: float, call: Callable[..., None], *args: Any) -> None:
        """Do `call(*args)` at an instant; one in the past is done next."""
        self._sequence += 1
        heapq.heappush(self._heap, (max(instant, self.now), self._sequence, call, args))

    def after(self, delay_s: float, call: Callable[..., None], *args: Any) -> None:
        """Do `call(*args)` after a delay."""
        self.at(self.now + delay_s, call, *args)

    def run_until(self, instant: float, is_done: Callable[[], bool] = lambda: False) -> None:
        """Run everything up to an instant, or until `is_done` says so."""
        while self._heap and self._heap[0][0] <= instant and not is_done():
            self.now, _, call, args = heapq.heappop(self._heap)
            self.events += 1
            call(*args)
        if not is_done():
            self.now = max(self.now, instant)


class Link:
    """One direction between two processes: in order, each message delayed at random, lost when either side dies."""

    def __init__(self, clock: Clock, deliver: Callable[[Any], None]) -> None:
        self._clock = clock
        self._deliver = deliver
        self._last = clock.now
        self.is_open = True

    def send(self, message: Any) -> None:
        """Deliver the message later, after all that were sent before."""
        if not self.is_open:
            return
        delay_s = self._clock.random.expovariate(1.0 / self._clock.mean_delay_s)
        self._last = max(self._last, self._clock.now + delay_s)
        self._clock.at(self._last, self._arrive, message)

    def cut(self) -> None:
        """Lose everything that has not arrived."""
        self.is_open = False

    def _arrive(self, message: Any) -> None:
        if self.is_open:
            self._deliver(message)
