"""Whose turn it is: among tenants (or endpoints) by deficit round robin, within a tenant by priority and age.

The router's mind orders tenants with `DeficitRoundRobin` (`trtd.core.dispatch`), its shell reads endpoints in the order
of another one (`trtd.router`). What a turn costs is told by the caller.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from trtd.core.requests import Request

K = TypeVar("K", bound=Hashable)


class _Share:
    """One key's weight, what it may still spend (below zero: what it owes), and in which busy period it spent it."""

    __slots__ = ("deficit", "period", "weight")

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.deficit = 0.0
        self.period = 0


class DeficitRoundRobin(Generic[K]):
    """Weighted fair turns among the active keys, O(1) amortised as long as one item costs no more than some quanta.

    A turn allows its key `quantum * weight`. An item may overdraw that, and the debt is paid from the next turns, also
    when the key was inactive in between; so of two keys that stay active, what each was charged divided by its weight
    never differs by more than one quantum plus one largest item. Debts end with the busy period (no key active); credit
    is never saved.

    Attributes:
        ring: the active keys in the order of their turns; to be read only.
    """

    def __init__(self, quantum: int) -> None:
        if quantum <= 0:
            raise ValueError("the quantum of a turn is positive")
        self._quantum = quantum
        self._shares: dict[K, _Share] = {}
        self.ring: OrderedDict[K, _Share] = OrderedDict()
        self._is_granted = False
        self._period = 0

    def __contains__(self, key: object) -> bool:
        return key in self._shares

    def __len__(self) -> int:
        """How many keys are active."""
        return len(self.ring)

    def add(self, key: K, weight: int) -> None:
        """Make a key known; it is inactive."""
        if key in self._shares:
            raise ValueError(f"{key!r} is known already")
        self._shares[key] = _Share(_checked(weight))

    def remove(self, key: K) -> None:
        """Forget a key."""
        self.deactivate(key)
        del self._shares[key]

    def set_weight(self, key: K, weight: int) -> None:
        """Change a key's weight; its next turn obeys it."""
        self._shares[key].weight = _checked(weight)

    def activate(self, key: K) -> None:
        """The key has something to do; it joins at the back. Nothing happens when it is active already."""
        if key in self.ring:
            return
        share = self._shares[key]
        if share.period != self._period:
            share.period = self._period
            share.deficit = 0.0
        self.ring[key] = share

    def deactivate(self, key: K) -> None:
        """The key has nothing to do any more. Nothing happens when it is inactive already."""
        share = self.ring.get(key)
        if share is None:
            return
        if self._is_granted and next(iter(self.ring)) == key:
            self._is_granted = False
        del self.ring[key]
        if share.deficit > 0.0:
            share.deficit = 0.0
        if not self.ring:
            self._period += 1

    def is_active(self, key: K) -> bool:
        """Whether the key takes part in the turns."""
        return key in self.ring

    def next(self) -> K | None:
        """The active key whose turn it is, None without any. It stays the same until it is charged enough."""
        ring = self.ring
        passed = 0
        while ring:
            key = next(iter(ring))
            share = ring[key]
            if not self._is_granted:
                share.deficit += self._quantum * share.weight
                self._is_granted = True
            if share.deficit > 0.0:
                return key
            self._pass_on(key)
            passed += 1
            if passed == len(ring):
                self._skip_rounds()
                passed = 0
        return None

    def allowance(self, key: K) -> float:
        """What the key, when it is its turn, may be charged before the turn passes on."""
        return self._shares[key].deficit

    def charge(self, key: K, cost: float) -> None:
        """The key was served at this cost; when its allowance is used up, the turn passes on."""
        share = self._shares[key]
        share.deficit -= cost
        if share.deficit <= 0.0 and self._is_granted and key in self.ring and next(iter(self.ring)) == key:
            self._pass_on(key)

    def _pass_on(self, key: K) -> None:
        self.ring.move_to_end(key)
        self._is_granted = False

    def _skip_rounds(self) -> None:
        """Everybody is in debt: grant at once all the rounds that would change nothing."""
        rounds = min(-share.deficit // (self._quantum * share.weight) for share in self.ring.values())
        if rounds > 0:
            for share in self.ring.values():
                share.deficit += rounds * self._quantum * share.weight


def _checked(weight: int) -> int:
    if weight <= 0:
        raise ValueError("a weight is positive")
    return weight


class TenantQueue:
    """One tenant's waiting requests: the highest priority first, within a priority in the order of their arrival.

    No priority starves: while several wait, every `TURNS_PER_OLDEST`-th pop takes the request that was received first,
    whatever its priority. A request that has to wait longer than its deadline is answered by then anyway.

    Attributes:
        levels: what waits, by priority; to be read only, and empty when nothing waits.
    """

    TURNS_PER_OLDEST = 16

    def __init__(self) -> None:
        self.levels: dict[int, OrderedDict[Request, None]] = {}
        self._size = 0
        self._overtakes = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Request]:
        """All of them, in the order of priority and arrival."""
        for priority in sorted(self.levels, reverse=True):
            yield from self.levels[priority]

    def push(self, request: Request) -> None:
        """Add a request behind those of its priority."""
        level = self.levels.get(request.priority)
        if level is None:
            level = self.levels[request.priority] = OrderedDict()
        level[request] = None
        self._size += 1

    def push_front(self, request: Request) -> None:
        """Give a request back: it goes before those of its priority."""
        self.push(request)
        self.levels[request.priority].move_to_end(request, last=False)

    def pop(self) -> Request:
        """Take the next one; IndexError when there is none."""
        levels = self.levels
        if len(levels) == 1:
            priority = next(iter(levels))
        elif levels:
            priority = self._choose()
        else:
            raise IndexError("the queue is empty")
        level = levels[priority]
        request, _ = level.popitem(last=False)
        if not level:
            del levels[priority]
        self._size -= 1
        return request

    def remove(self, request: Request) -> None:
        """Take out one that is in the queue."""
        level = self.levels[request.priority]
        del level[request]
        if not level:
            del self.levels[request.priority]
        self._size -= 1

    def _choose(self) -> int:
        self._overtakes += 1
        if self._overtakes % self.TURNS_PER_OLDEST:
            return max(self.levels)
        return min(self.levels, key=lambda priority: next(iter(self.levels[priority])).received_at)
