"""Who exists: every child under its name, stepped here and nowhere else, with the deadlines of all of them."""

from __future__ import annotations

from trtd.core import lifecycle
from trtd.core.deadlines import Deadlines
from trtd.core.ids import WorkerKey
from trtd.core.lifecycle import Child, Effect, Event, Timeouts
from trtd.core.restarts import RestartPolicy
from trtd.errors import Blame


class Roster:
    """The children.

    Attributes:
        children: by name.
        keys: places of the workers among them, by name.
    """

    def __init__(self) -> None:
        self.children: dict[str, Child] = {}
        self.keys: dict[str, WorkerKey] = {}
        self._deadlines = Deadlines()

    def add(
        self, name: str, key: WorkerKey | None, timeouts: Timeouts, restarts: RestartPolicy, *, above: int = 0
    ) -> None:
        """Add a child that is STOPPED.

        Args:
            name: of the child.
            key: its place; None for one that is no worker.
            timeouts: patience with it.
            restarts: policy for it.
            above: its first life has a higher generation than this.
        """
        owner = Blame.DAEMON if key is None else Blame.TENANT
        self.children[name] = Child(name, timeouts, restarts, owner, generation=above)
        if key is not None:
            self.keys[name] = key

    def forget(self, name: str) -> None:
        """Drop a child that is STOPPED."""
        del self.children[name], self.keys[name]

    def succeed(self, name: str, former: str) -> None:
        """Let a child carry on the counts of another one, whose work it takes over."""
        self.children[name] = lifecycle.succeed(self.children[name], self.children[former])

    def adopt(self, name: str, timeouts: Timeouts, restarts: RestartPolicy) -> None:
        """Give a child other timeouts and limits."""
        self.children[name] = lifecycle.adopt(self.children[name], timeouts, restarts)

    def step(self, name: str, event: Event, now: float) -> tuple[bool, tuple[Effect, ...]]:
        """Step one child.

        Returns:
            Whether more than its life signs changed, and its effects.
        """
        before = self.children[name]
        after, effects = lifecycle.step(before, event, now)
        if after is before:
            return False, effects
        self.children[name] = after
        self._deadlines.set(name, after.deadline)
        return after.state is not before.state or not isinstance(event, lifecycle.Beat), effects

    def next_deadline(self) -> float | None:
        """The earliest deadline of any child."""
        return self._deadlines.next()

    def take_due(self, now: float) -> list[str]:
        """The children whose deadline has come. Each of them has to be stepped with TimePassed, which sets it anew."""
        return self._deadlines.take_due(now)
