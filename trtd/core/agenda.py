"""When the router's mind has to look again: deadlines of requests, and instants set for tenants.

Most requests have the same timeout, so their deadlines come in order: a queue holds them, and a heap the others. Both
with lazy deletion: a request that is answered stays until it comes up, or until such entries are the larger part.
"""

from __future__ import annotations

import heapq
import math
from collections import deque

from trtd.core.requests import Request
from trtd.core.tenancy import Tenant

_MIN_STALE = 1024
"""Fewer stale entries than this are not worth a rebuild of the heap."""


class Agenda:
    """Instants in order, each with the request whose deadline it is or the tenant that it was set for.

    Attributes:
        stale: entries of requests that have their answer.
        soonest: the first instant at which something may come up, infinite for never. It may turn out to be the
            deadline of a request that was answered; to look is cheaper at that time than now.
    """

    def __init__(self) -> None:
        self._queue: deque[Request] = deque()
        self._heap: list[tuple[float, int, Request | Tenant]] = []
        self._sequence = 0
        self.stale = 0
        self.soonest = math.inf

    def __len__(self) -> int:
        """How many entries it keeps, stale ones included."""
        return len(self._queue) + len(self._heap)

    def watch_deadline(self, request: Request) -> None:
        """Let the request come up when its deadline passes, unless it is answered by then."""
        deadline = request.deadline
        if deadline < self.soonest:
            self.soonest = deadline
        queue = self._queue
        if not queue or queue[-1].deadline <= deadline:
            queue.append(request)
        else:
            self._push(deadline, request)

    def look_again(self, tenant: Tenant, at: float) -> None:
        """Let the tenant come up at an instant."""
        self.soonest = min(self.soonest, at)
        self._push(at, tenant)

    def _push(self, at: float, what: Request | Tenant) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (at, self._sequence, what))

    def note_answered(self, count: int = 1) -> None:
        """So many of the watched requests were answered."""
        self.stale += count
        if self.stale > _MIN_STALE and 2 * self.stale > len(self):
            self._queue = deque([request for request in self._queue if not request.is_answered])
            self._heap = [entry for entry in self._heap if not _is_stale(entry[2])]
            heapq.heapify(self._heap)
            self.stale = 0

    def take_due(self, now: float) -> Request | Tenant | None:
        """What has come up, one at a time, None when there is nothing more. A request taken is watched no longer."""
        queue, heap = self._queue, self._heap
        while queue or heap:
            due: Request | Tenant
            if queue and not (heap and heap[0][0] < queue[0].deadline):
                due, at = queue[0], queue[0].deadline
            else:
                at, _, due = heap[0]
            is_answered = _is_stale(due)
            if at > now and not is_answered:
                self.soonest = at
                return None
            if queue and due is queue[0]:
                queue.popleft()
            else:
                heapq.heappop(heap)
            if isinstance(due, Request):
                self.stale -= 1  # the answer of one that is due follows, and is noted like every other
            if not is_answered:
                return due
        self.soonest = math.inf
        return None

    def watched(self) -> set[int]:
        """`id()` of every unanswered request that is watched; for `Dispatcher.check`.

        Raises:
            AssertionError: the count of stale entries is wrong.
        """
        entries = [*self._queue, *(due for _, _, due in self._heap)]
        stale = sum(map(_is_stale, entries))
        if stale != self.stale:
            raise AssertionError(f"{stale} entries are stale, and {self.stale} are counted")
        return {id(due) for due in entries if not _is_stale(due)}


def _is_stale(due: Request | Tenant) -> bool:
    return isinstance(due, Request) and due.is_answered
