"""Which runs of a slot are captured, which of them stay, and when it is worth trying. Pure: what counts are runs.

A graph costs a context and some runs' time, once; so a shape has to come again before it gets one, and more often
before it gets the place of another. A capture that failed may succeed later (another thread may have disturbed it), so
it is tried again, each time after twice as many runs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

RUNS_BEFORE_CAPTURE = 2
"""A shape that comes once is not worth a graph."""
RUNS_BEFORE_EVICTION = 64
"""Of a shape without a graph, before it gets the place of the one that was not used for the longest time."""
PAUSE_RUNS = 64
MAX_PAUSE_RUNS = 65536
"""Runs of the slot after a capture that failed, before the next try: at first, and at most."""
MAX_COUNTED = 256
"""Shapes without a graph whose runs are counted; those that came last."""

Kept = TypeVar("Kept")


class Graphs(Generic[Kept]):
    """The captured runs of one slot, by whatever names them."""

    def __init__(self, most: int) -> None:
        """Begin with none.

        Args:
            most: that are kept at a time; 0 for none ever.
        """
        self._most = most
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._runs: OrderedDict[Hashable, int] = OrderedDict()
        self._pause_runs = 0
        self._paused_for = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Hashable) -> Kept | None:
        """The graph of a shape that is about to run; it counts as used."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def note_run(self, key: Hashable) -> bool:
        """A shape ran without a graph; whether it should be captured now. `keep` or `note_failure` must follow then."""
        if not self._most:
            return False
        runs = self._runs.pop(key, 0) + 1
        self._runs[key] = runs
        if len(self._runs) > MAX_COUNTED:
            self._runs.popitem(last=False)
        if self._paused_for:
            self._paused_for -= 1
            return False
        return runs >= (RUNS_BEFORE_EVICTION if self.is_full else RUNS_BEFORE_CAPTURE)

    @property
    def is_full(self) -> bool:
        """Whether another one needs the place of one that is kept."""
        return len(self._kept) >= self._most

    def take_oldest(self) -> Kept:
        """Give up the one that was not used for the longest time."""
        return self._kept.popitem(last=False)[1]

    def keep(self, key: Hashable, graph: Kept) -> None:
        """A shape was captured; there is a place for it."""
        self._runs.pop(key, None)
        self._kept[key] = graph
        self._pause_runs = 0

    def note_failure(self, key: Hashable) -> int:
        """A shape could not be captured; runs of the slot until the next try of any."""
        self._runs.pop(key, None)
        self._pause_runs = min(self._pause_runs * 2, MAX_PAUSE_RUNS) or PAUSE_RUNS
        self._paused_for = self._pause_runs
        return self._pause_runs

    def take_all(self) -> list[Kept]:
        """Give all of them up."""
        graphs = list(self._kept.values())
        self._kept.clear()
        return graphs
