"""Which runs of a slot are captured, which of them stay, and when it is worth trying. Pure: what counts are runs.

A graph costs a context and some runs' time, once; so a shape has to come again before it gets one. It gets the place of
another only after it came often while that one was not used at all: where more shapes come in turns than there are
places, those that have a graph keep it.

A capture that failed may succeed later (another thread may have disturbed it), so it is tried again, each time after
twice as many runs.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

RUNS_BEFORE_CAPTURE = 2
"""A shape that comes once is not worth a graph."""
SAVED_S = 50e-6
"""What a graph saves a run: 5 us of an MLP, 70 of a ResNet-50, on an H200. So often a shape comes before it gets one
while requests wait that the time of the capture comes back; to make a context takes 3 ms or 60."""
MAX_RUNS_BEFORE_CAPTURE = 4096
RUNS_BEFORE_EVICTION = 64
"""Of a shape without a graph, while the graph that was used least recently was not used, before it gets its place."""
PAUSE_RUNS = 64
MAX_PAUSE_RUNS = 65536
"""Runs of the slot after a capture that failed, before the next try: at first, and at most."""
MAX_COUNTED = 256
"""Shapes without a graph whose runs are counted; those that came last."""

Kept = TypeVar("Kept")


@dataclass(slots=True)
class _Place(Generic[Kept]):
    """A graph that is kept, and the run that used it last."""

    graph: Kept
    used_at: int


@dataclass(slots=True)
class _Count:
    """Runs of a shape without a graph, since a run."""

    began_at: int
    runs: int = 0


class Graphs(Generic[Kept]):
    """The captured runs of one slot, by whatever names them.

    Attributes:
        is_eager: whether a shape gets its graph as soon as it can, whatever that takes: while nobody waits.
    """

    def __init__(self, most: int) -> None:
        """Begin with none.

        Args:
            most: that are kept at a time; 0 for none ever.
        """
        self._most = most
        self.is_eager = False
        self._worth_runs = RUNS_BEFORE_CAPTURE
        self._kept: OrderedDict[Hashable, _Place[Kept]] = OrderedDict()
        self._counts: OrderedDict[Hashable, _Count] = OrderedDict()
        self._run = 0
        self._pause_runs = 0
        self._paused_for = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Hashable) -> Kept | None:
        """The graph of a shape that is about to run; it counts as used."""
        self._run += 1
        found = self._kept.get(key)
        if found is None:
            return None
        found.used_at = self._run
        self._kept.move_to_end(key)
        return found.graph

    def note_run(self, key: Hashable) -> bool:
        """A shape ran without a graph; whether it should be captured now. `keep` or `note_failure` must follow then."""
        if not self._most:
            return False
        count = self._counts.pop(key, None) or _Count(self._run)
        count.runs += 1
        self._counts[key] = count
        if len(self._counts) > MAX_COUNTED:
            self._counts.popitem(last=False)
        if self._paused_for:
            self._paused_for -= 1
            return False
        worth_runs = RUNS_BEFORE_CAPTURE if self.is_eager else self._worth_runs
        if not self.is_full:
            return count.runs >= worth_runs
        if count.runs < max(RUNS_BEFORE_EVICTION, worth_runs):
            return False
        oldest = next(iter(self._kept.values()))
        if oldest.used_at < count.began_at:
            return True
        count.runs, count.began_at = 0, self._run + 1
        return False

    @property
    def is_full(self) -> bool:
        """Whether another one needs the place of one that is kept."""
        return len(self._kept) >= self._most

    def take_oldest(self) -> Kept:
        """Give up the one that was not used for the longest time."""
        return self._kept.popitem(last=False)[1].graph

    def keep(self, key: Hashable, graph: Kept, took_s: float = 0.0) -> None:
        """A shape was captured, which took so long; there is a place for it."""
        self._worth_runs = min(max(RUNS_BEFORE_CAPTURE, math.ceil(took_s / SAVED_S)), MAX_RUNS_BEFORE_CAPTURE)
        self._counts.pop(key, None)
        self._kept[key] = _Place(graph, self._run)
        self._pause_runs = 0

    def note_failure(self, key: Hashable) -> int:
        """A shape could not be captured; runs of the slot until the next try of any."""
        self._counts.pop(key, None)
        self._pause_runs = min(self._pause_runs * 2, MAX_PAUSE_RUNS) or PAUSE_RUNS
        self._paused_for = self._pause_runs
        return self._pause_runs

    def take_all(self) -> list[Kept]:
        """Give all of them up."""
        graphs = [place.graph for place in self._kept.values()]
        self._kept.clear()
        return graphs
