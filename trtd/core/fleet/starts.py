"""Whose turn it is to start: workers load a few at a time, so that those that serve get a processor meanwhile.

Loading takes all that a processor has, for seconds. Where all workers of many tenants are replaced or started at once,
the others, the router among them, would hardly run. So a start waits for a place; who served and died goes before who
is new, and may take as many places again; of equals the tenant goes first that has fewest workers loading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trtd.core.ids import TenantName
from trtd.core.lifecycle import Child, Spawn, State

HOLDS_S = 10.0
"""A worker that loads for longer gives its place up: one that hangs, or reads a slow disk, must not hold up others."""

LOADING = frozenset({State.STARTING, State.WARMING})


@dataclass(frozen=True, slots=True)
class Start:
    """A start that waits.

    Attributes:
        name: of the worker.
        tenant: whose.
        spawn: what is to be done.
        is_urgent: whether the worker served before it died.
    """

    name: str
    tenant: TenantName
    spawn: Spawn
    is_urgent: bool


@dataclass(frozen=True, slots=True)
class _Loading:
    tenant: TenantName
    until: float


class Starts:
    """Places for workers that load.

    Args:
        most: places; 0 for as many as are wanted.

    Attributes:
        waiting: starts without a place, by name of the worker, in the order in which they came.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.waiting: dict[str, Start] = {}
        self._loading: dict[str, _Loading] = {}

    def add(self, start: Start) -> None:
        """A worker wants to start."""
        self.waiting[start.name] = start

    def withdraw(self, name: str) -> Start | None:
        """A worker does not want to start any more; its start, when it was waiting."""
        return self.waiting.pop(name, None)

    def ended(self, name: str) -> None:
        """A worker does not load any more, whatever came of it."""
        self._loading.pop(name, None)

    def next_release(self) -> float | None:
        """When a place becomes free by the clock alone; None while nobody waits for one."""
        return min((each.until for each in self._loading.values()), default=None) if self.waiting else None

    def take(self, now: float) -> Start | None:
        """The next start that has a place, which it holds from now on; None when there is none."""
        for name in [name for name, each in self._loading.items() if each.until <= now]:
            del self._loading[name]
        if not self.waiting:
            return None
        start = min(self.waiting.values(), key=self._rank)
        most = 2 * self._most if start.is_urgent else self._most
        if self._most and len(self._loading) >= most:
            return None
        del self.waiting[start.name]
        self._loading[start.name] = _Loading(start.tenant, now + HOLDS_S)
        return start

    def broken_promises(self, children: Mapping[str, Child]) -> Iterator[str]:
        """A line for each promise that does not hold between two events."""
        for name, start in self.waiting.items():
            child = children.get(name)
            if child is None or (child.state, child.generation) != (State.STARTING, start.spawn.generation):
                yield f"the start of {name} waits, and it is {child and child.state}"
        for name in self._loading:
            child = children.get(name)
            if child is None or child.state not in LOADING:
                yield f"{name} holds a place to load, and is {child and child.state}"
        if self.waiting and len(self._loading) < self._most:
            yield f"{len(self.waiting)} starts wait though a place is free"

    def _rank(self, start: Start) -> tuple[bool, int]:
        return not start.is_urgent, sum(each.tenant == start.tenant for each in self._loading.values())
