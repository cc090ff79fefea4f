"""Many keys, each with at most one deadline that moves often, and the earliest of them at hand at once."""

from __future__ import annotations

import heapq


class Deadlines:
    """Deadlines by key. Moving one to later, as each life sign does, costs no more than a dictionary entry."""

    def __init__(self) -> None:
        self._deadlines: dict[str, float] = {}
        # One live heap entry for each key, never later than its deadline; the top is put right when it is looked at.
        self._queued: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def set(self, key: str, deadline: float | None) -> None:
        """Give the key this deadline instead of any earlier one; None takes it away."""
        if deadline is None:
            self._deadlines.pop(key, None)
            return
        self._deadlines[key] = deadline
        queued = self._queued.get(key)
        if queued is None or deadline < queued:
            self._push(key, deadline)

    def next(self) -> float | None:
        """The earliest deadline, None when there is none."""
        while self._heap:
            at, key = self._heap[0]
            is_live = self._queued.get(key) == at
            deadline = self._deadlines.get(key)
            if is_live and deadline == at:
                return at
            heapq.heappop(self._heap)
            if is_live:
                del self._queued[key]
                if deadline is not None:
                    self._push(key, deadline)
        return None

    def take_due(self, now: float) -> list[str]:
        """The keys whose deadline has come, earliest first; they have none afterwards."""
        due: list[str] = []
        while (at := self.next()) is not None and at <= now:
            key = self._heap[0][1]
            del self._deadlines[key]
            due.append(key)
        return due

    def _push(self, key: str, deadline: float) -> None:
        self._queued[key] = deadline
        heapq.heappush(self._heap, (deadline, key))
