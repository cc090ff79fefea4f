"""Which requests of a worker run together, and when: closed by size, or by the age of the first one.

Requests may share a batch when they agree on their group: model and version, and every shape but for the first
dimension. Suspects, which must run alone, get a group of their own from the shell. The worker's shell
(`trtd.worker.loop`) adds what arrives and takes what is due.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

PROVEN = "proven"
"""Requests of a model are joined: it was shown that joined equals separate."""
FORCED = "forced"
"""They are joined because the configuration says so."""
OFF = "off"
"""They run alone because the configuration says so."""

MAX_REASON_LENGTH = 300


def alone(reason: str) -> str:
    """They run alone for this reason."""
    return f"alone: {reason[:MAX_REASON_LENGTH]}"


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch of one model closes.

    Attributes:
        max_items: most items (sum of first dimensions) in one batch.
        max_delay_s: longest wait of its first request; 0 never waits.
    """

    max_items: int
    max_delay_s: float


# Not frozen: one is made per request, and freezing triples the price.
@dataclass(slots=True, eq=False)
class Waiting:
    """One request that waits for its batch. Compared by identity. What is to be done is in classes derived from it.

    Attributes:
        group: requests of equal groups may run together; None runs alone always, and at once.
        items: its first dimension.
        arrived_at: when the worker got it.
        expires_at: when nobody wants its answer any more.
        limits: when its batch closes; the same for all requests of one group.
    """

    group: Hashable | None
    items: int
    arrived_at: float
    expires_at: float
    limits: BatchLimits


W = TypeVar("W", bound=Waiting)


class _Group(Generic[W]):
    """Requests that may run together, in the order of their arrival."""

    __slots__ = ("items", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[W] = deque()
        self.items = 0

    def due_at(self) -> float:
        """When its next batch closes; in the past when it is full or need not wait."""
        first = self.waiting[0]
        if first.group is None or self.items >= first.limits.max_items:
            return first.arrived_at
        return first.arrived_at + first.limits.max_delay_s


class Batcher(Generic[W]):
    """All requests that wait in one worker.

    The oldest group that is due goes first, and within a group the oldest request. A batch takes what fits its size;
    a request that is larger than a whole batch runs alone. Expired requests are never part of a batch: they are given
    back by `take_expired`.
    """

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group[W]] = {}
        self._size = 0
        # Nothing that waits expires earlier. It may be too early, for what has left; then one look finds nothing.
        self._expires_first = float("inf")

    def __len__(self) -> int:
        return self._size

    def extend(self, arrived: Sequence[W]) -> None:
        """Let requests wait for their batches, in their order."""
        known: Hashable | None = None
        for waiting in arrived:
            key = waiting.group
            # The same object as the one before, as a rule; looking it up means to hash all that it consists of.
            if key is None or key is not known:
                known = key
                group = self._group(_Alone() if key is None else key)
            group.waiting.append(waiting)
            group.items += waiting.items
            if waiting.expires_at < self._expires_first:
                self._expires_first = waiting.expires_at
        self._size += len(arrived)

    def _group(self, key: Hashable) -> _Group[W]:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
        return group

    def take(self, now: float) -> list[W] | None:
        """A batch that is due, None when none is. ValueError if any has expired: call `take_expired` first."""
        if self._expires_first <= now:
            raise ValueError("expired requests are taken out first")
        best: Hashable = None
        oldest = float("inf")
        for key, group in self._groups.items():
            if group.waiting[0].arrived_at < oldest and group.due_at() <= now:
                best, oldest = key, group.waiting[0].arrived_at
        return None if best is None else self._close(best)

    def next_due(self) -> float | None:
        """When to look again: not later than a batch is due or a request expires; None when nothing waits."""
        if not self._groups:
            return None
        return min(self._expires_first, min(group.due_at() for group in self._groups.values()))

    def take_expired(self, now: float) -> list[W]:
        """Take out what nobody waits for any more.

        The router has answered these already. It still counts their leases until the worker says that it is done with
        them, so the worker sends a DEADLINE_EXCEEDED result for each, which the router drops as stale.
        """
        if self._expires_first > now:
            return []
        expired: list[W] = []
        for key, group in list(self._groups.items()):
            kept = deque(waiting for waiting in group.waiting if waiting.expires_at > now)
            if len(kept) == len(group.waiting):
                continue
            expired.extend(waiting for waiting in group.waiting if waiting.expires_at <= now)
            group.waiting = kept
            group.items = sum(waiting.items for waiting in kept)
            if not kept:
                del self._groups[key]
        self._size -= len(expired)
        self._expires_first = min(
            (waiting.expires_at for group in self._groups.values() for waiting in group.waiting), default=float("inf")
        )
        return expired

    def _close(self, key: Hashable) -> list[W]:
        group = self._groups[key]
        room = group.waiting[0].limits.max_items
        if group.items <= room:
            batch = list(group.waiting)
            del self._groups[key]
        else:
            batch = self._part(group, room)
            if not group.waiting:
                del self._groups[key]
        self._size -= len(batch)
        if not self._groups:
            self._expires_first = float("inf")
        return batch

    @staticmethod
    def _part(group: _Group[W], room: int) -> list[W]:
        """What fits, or the one that is too large by itself."""
        batch: list[W] = []
        while group.waiting and (not batch or group.waiting[0].items <= room):
            waiting = group.waiting.popleft()
            room -= waiting.items
            group.items -= waiting.items
            batch.append(waiting)
        return batch


class _Alone:
    """The key of a group with one member; equal to nothing but itself."""

    __slots__ = ()
