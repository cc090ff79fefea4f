"""When the router's mind has to look again: deadlines of requests, and instants set for tenants.

A heap with lazy deletion: a request that is answered stays until it comes up, or until such entries are the larger
part.
"""

from __future__ import annotations

import heapq

from trtd.core.requests import Request
from trtd.core.tenancy import Tenant

_MIN_STALE = 1024
"""Fewer stale entries than this are not worth a rebuild of the heap."""


class Agenda:
    """Instants in order, each with the request whose deadline it is or the tenant that it was set for.

    Attributes:
        stale: entries of requests that have their answer.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request | Tenant]] = []
        self._sequence = 0
        self.stale = 0

    def __len__(self) -> int:
        """How many entries it keeps, stale ones included."""
        return len(self._heap)

    def watch_deadline(self, request: Request) -> None:
        """Let the request come up when its deadline passes, unless it is answered by then."""
        self._sequence += 1
        heapq.heappush(self._heap, (request.deadline, self._sequence, request))

    def look_again(self, tenant: Tenant, at: float) -> None:
        """Let the tenant come up at an instant."""
        self._sequence += 1
        heapq.heappush(self._heap, (at, self._sequence, tenant))

    def note_answered(self) -> None:
        """One of the watched requests was answered."""
        self.stale += 1
        if self.stale > _MIN_STALE and 2 * self.stale > len(self._heap):
            self._heap = [entry for entry in self._heap if not _is_stale(entry[2])]
            heapq.heapify(self._heap)
            self.stale = 0

    def next_instant(self) -> float | None:
        """The first instant at which something may come up, None for never.

        It may turn out to be the deadline of a request that was answered; to look is cheaper at that time than now.
        """
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float) -> Request | Tenant | None:
        """What has come up, one at a time, None when there is nothing more. A request taken is watched no longer."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            due = heapq.heappop(heap)[2]
            if _is_stale(due):
                self.stale -= 1
                continue
            if isinstance(due, Request):
                self.stale -= 1  # its answer, which follows, is noted like every other
            return due
        return None

    def watched(self) -> set[int]:
        """`id()` of every unanswered request that is watched; for `Dispatcher.check`.

        Raises:
            AssertionError: the count of stale entries is wrong.
        """
        stale = sum(_is_stale(due) for _, _, due in self._heap)
        if stale != self.stale:
            raise AssertionError(f"{stale} entries are stale, and {self.stale} are counted")
        return {id(due) for _, _, due in self._heap if not _is_stale(due)}


def _is_stale(due: Request | Tenant) -> bool:
    return isinstance(due, Request) and due.is_answered
