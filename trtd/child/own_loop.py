"""An event loop whose clock stands still while its process does (see `trtd.core.patience.OwnTime`).

Everything that waits in such a loop, for a child, for a peer or for a task of its own, takes off the time in which the
loop could not have heard an answer: after a SIGSTOP, a move of the virtual machine or a sleep of the laptop its
timers are as far away as before.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable

from trtd.core.patience import OwnTime

TICK_S = 0.2
"""Longest sleep of the loop: a pause costs whoever is waited for no more of his time than this."""
TURN_S = 0.1
"""Between two looks at the descriptors the loop has so long for what they brought."""


class _Selector(selectors.EpollSelector):
    """Says before each wait when it ends at the latest."""

    def __init__(self, own: OwnTime, clock: Callable[[], float]) -> None:
        super().__init__()
        self._own = own
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As its base, for a tick at most; the loop does not mind being woken for nothing."""
        wait_s = TICK_S if timeout is None else min(max(timeout, 0.0), TICK_S)
        now = self._clock()
        self._own.read(now)
        self._own.expect(now + wait_s)
        ready = super().select(wait_s)
        now = self._clock()
        self._own.read(now)
        self._own.expect(now + TURN_S)
        return ready


class OwnLoop(asyncio.SelectorEventLoop):
    """The loop; `time()` is own time, which is the same as CLOCK_MONOTONIC as long as nothing held it up."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._own = OwnTime()
        self._monotonic = clock
        super().__init__(_Selector(self._own, clock))

    def time(self) -> float:
        """Seconds of own time."""
        return self._own.read(self._monotonic())
