"""Whose fault a silence is: that of the one who listens, of whoever keeps a process from running, or of the process.

A process is hung when it could have spoken and did not. So whoever judges first takes off the time in which it did not
run itself (`OwnTime`), then the time in which the other one was stopped by a signal or waited for a processor, as the
kernel tells it (`Sight`).

Pure: who looks at the kernel, and when, is left to the supervisor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

SLACK_S = 0.02
"""To be so late is usual; more means that something kept this process from running."""
LOOKS = 4
"""Looks at a silent process within the patience with it, the first one after half of it."""
MOST_WAITS = 4
"""So many times the patience is excused for want of a processor. A process that spins on a crowded machine waits for
one as well as a healthy process does, and has to be found all the same."""


@dataclass(slots=True)
class OwnTime:
    """Monotonic seconds without those in which this process was kept from running.

    A process that is stopped, or whose machine sleeps, cannot have heard anybody meanwhile. Who says beforehand when it
    will run next, at the latest, knows afterwards how late it was.

    Attributes:
        lost_s: what was taken off so far.
    """

    lost_s: float = 0.0
    _due: float = math.inf

    def expect(self, by: float) -> None:
        """This process will run at this monotonic instant at the latest, if nothing keeps it."""
        self._due = by

    def read(self, now: float) -> float:
        """Own time at a monotonic instant; it never goes back."""
        late_s = now - self._due
        if late_s > 0.0:
            self._due = now
            if late_s > SLACK_S:
                self.lost_s += late_s
        return now - self.lost_s


class ThreadSight(NamedTuple):
    """What the kernel says of one thread.

    Attributes:
        wants_processor: whether it runs or waits to.
        ran_s: time on a processor, since it began.
        waited_s: time in which it wanted one in vain. What it waits now is added when it gets one.
    """

    wants_processor: bool
    ran_s: float
    waited_s: float


@dataclass(frozen=True, slots=True)
class Sight:
    """What the kernel says of a process at one instant.

    Attributes:
        is_stopped: by a signal or a debugger, until somebody lets it go on.
        threads: by thread id; empty where the kernel does not tell.
    """

    is_stopped: bool
    threads: Mapping[int, ThreadSight]


def waited_s(before: Sight, after: Sight, elapsed_s: float) -> float:
    """For how long a process was kept from running between two looks, for want of a processor.

    Of several threads the one that waited longest counts: the others may need what it holds.
    """
    waits = (
        elapsed_s if now.wants_processor and now.ran_s == was.ran_s else now.waited_s - was.waited_s
        for thread, now in after.threads.items()
        if (was := before.threads.get(thread)) is not None
    )
    return min(elapsed_s, max(waits, default=0.0))


class Patience(NamedTuple):
    """Patience with one thing that a process owes.

    Attributes:
        since: when it began to be owed.
        limit_s: how long it may take.
        excused_s: how much longer, because the process waited for a processor.
    """

    since: float
    limit_s: float
    excused_s: float

    @property
    def ends_at(self) -> float:
        """When it is over."""
        return self.since + self.limit_s + self.excused_s

    def next_look(self, looked_at: float) -> float:
        """When to look at the process next, at its end at the latest."""
        first = self.since + self.limit_s / 2
        return min(self.ends_at, first if looked_at < first else looked_at + self.limit_s / LOOKS)

    def excuse(self, before: Sight | None, after: Sight, looked_at: float, now: float) -> Patience:
        """This patience after another look at the process.

        Args:
            before: the look before, None where there was none.
            after: this one.
            looked_at: when the one before was.
            now: when this one is.
        """
        is_new = looked_at < self.since
        elapsed_s = max(0.0, now - max(looked_at, self.since))
        if after.is_stopped or (before is not None and before.is_stopped and not is_new):
            return self._replace(since=self.since + elapsed_s)
        if before is None or is_new:
            return self
        most_s = MOST_WAITS * self.limit_s - self.excused_s
        return self._replace(excused_s=self.excused_s + min(waited_s(before, after, elapsed_s), most_s))
