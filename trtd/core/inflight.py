"""What workers hold, who is suspected of ending them, and which inputs are known to.

`Holder` is one life of a worker with its leases. `SuspectLane` keeps the requests that were leased when a worker died,
in groups that shrink with each further death until the culprit is alone. `PoisonTable` remembers convicted inputs for a
while. `trtd.core.dispatch` moves the requests between them.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

from trtd.core.ids import LeaseId, WorkerId
from trtd.core.requests import Request

MAX_PARTS = 8
"""Groups that one group is split into after a death: a further group costs a round trip, a further death a restart."""

LONE_DEATHS_TO_CONVICT = 2
"""One death can be chance; a worker that dies twice with nothing else in its hands was ended by that request."""

SUSPECT_PATIENCE_S = 2.0
"""How long suspects wait for the successor of the worker that died before they may go to another replica."""

SUSPICION_S = 60.0
"""How long an input is remembered that is suspected only; each new request is compared as long as any is remembered."""

GATHER_S = 0.0003
"""How long requests wait at most to travel together to a worker that is busy; about what one wake-up of it costs."""

MAX_POISONS = 1024
"""Most inputs remembered per tenant; the one noted first is forgotten first."""

MAX_DEATHS_KEPT = 16
"""Most deaths remembered of one input; a conviction needs few, and only recent ones are still counted by anybody."""


class Holder:
    """One life of a worker as the router sees it.

    Attributes:
        id: which life.
        leases: what it holds, in the order of dispatch; ghosts too, whose clients have been answered already.
        is_admitted: supervisor and connection agree that it may be given work.
        is_closed: it gets nothing new.
        is_announced: since it was closed, its emptiness has been announced.
        unheard: messages sent to it since it was last idle, less those that came back: about how many it has not read.
        sent_at: when the last one was sent.
    """

    __slots__ = ("id", "is_admitted", "is_announced", "is_closed", "leases", "sent_at", "unheard")

    def __init__(self, worker: WorkerId) -> None:
        self.id = worker
        self.leases: dict[LeaseId, Request] = {}
        self.is_admitted = False
        self.is_closed = False
        self.is_announced = False
        self.unheard = 0
        self.sent_at = 0.0

    def note_sent(self, now: float) -> None:
        """A message with requests went to it."""
        self.unheard += 1
        self.sent_at = now

    def note_heard(self) -> None:
        """A message with answers came from it."""
        self.unheard = self.unheard - 1 if self.leases and self.unheard else 0

    def gathers_until(self, slots: int) -> float:
        """Until when it is better to gather requests for it than to send them; in the past where it is not.

        With a message for each slot and one more on the way it has enough to go on with, and what comes meanwhile is
        cheaper in one message: for it, and for the router, that wakes it up less often. Its next answers end the wait.
        """
        return self.sent_at + GATHER_S if self.unheard > slots else -math.inf

    @property
    def is_open(self) -> bool:
        """Whether it may be given work, as far as it has room."""
        return self.is_admitted and not self.is_closed


def outstanding(holder: Holder) -> int:
    """How many leases a worker holds, ghosts included."""
    return len(holder.leases)


def split(requests: Sequence[Request]) -> list[list[Request]]:
    """At most MAX_PARTS groups of nearly equal size, in order."""
    parts = min(MAX_PARTS, len(requests))
    return [
        list(requests[len(requests) * part // parts : len(requests) * (part + 1) // parts]) for part in range(parts)
    ]


class SuspectLane:
    """Groups of suspects that wait for a worker of their own, the oldest suspicion first.

    Attributes:
        groups: to be read only.
    """

    def __init__(self) -> None:
        self.groups: deque[list[Request]] = deque()
        self._size = 0

    def __len__(self) -> int:
        """How many requests wait, over all groups."""
        return self._size

    def __iter__(self) -> Iterator[Request]:
        for group in self.groups:
            yield from group

    def append(self, group: list[Request]) -> None:
        """Add a group behind the others."""
        self.groups.append(self._marked(group))

    def push_front(self, groups: Sequence[list[Request]]) -> None:
        """Add groups before the others, in order."""
        self.groups.extendleft(self._marked(group) for group in reversed(groups))

    def pop(self) -> list[Request]:
        """Take the next group; IndexError when there is none."""
        group = self.groups.popleft()
        self._size -= len(group)
        return group

    def remove(self, request: Request) -> None:
        """Take one request out of its group."""
        group = next(group for group in self.groups if request in group)
        group.remove(request)
        self._size -= 1
        if not group:
            self.groups.remove(group)

    def _marked(self, group: list[Request]) -> list[Request]:
        for request in group:
            request.is_suspect = True
        self._size += len(group)
        return group


class Suspected(NamedTuple):
    """What is remembered of an input.

    Attributes:
        lone_deaths: workers that died while it was the only one they held.
        deaths: all workers that died with it, of faults that an input can cause.
        until: when it is forgotten.
    """

    lone_deaths: int
    deaths: tuple[WorkerId, ...]
    until: float


InputKey = tuple[Hashable, bytes]
"""Whose input, and its fingerprint. What one client sends is never held against another one: bytes in shared memory can
be changed by their owner at any time, so a fingerprint proves something about its sender alone."""


class PoisonTable:
    """Inputs that saw workers die, and how often they were alone in that, until their time is up.

    It holds convicted inputs, and suspected ones whose requests ended without a worker's answer: a client's retry of
    the same input then goes on counting where the former request ended.

    Attributes:
        entries: what is remembered, by client and fingerprint; to be read only.
        convicted_at: when an input was last convicted; what arrived later was compared at the door.
    """

    def __init__(self) -> None:
        self.entries: OrderedDict[InputKey, Suspected] = OrderedDict()
        self._expires_first = math.inf
        self.convicted_at = -math.inf

    def __len__(self) -> int:
        return len(self.entries)

    def note(self, key: InputKey, lone_deaths: int, deaths: Sequence[WorkerId], now: float, seconds: float) -> None:
        """Remember an input for so long. What is remembered of it already stays: a suspicion undoes no conviction."""
        known = self.entries.get(key) or Suspected(0, (), now)
        until = max(known.until, now + seconds)
        all_deaths = tuple(dict.fromkeys((*known.deaths, *deaths)))[-MAX_DEATHS_KEPT:]
        self.entries[key] = Suspected(max(known.lone_deaths, lone_deaths), all_deaths, until)
        self.entries.move_to_end(key)
        self._expires_first = min(self._expires_first, until)
        if lone_deaths >= LONE_DEATHS_TO_CONVICT:
            self.convicted_at = now
        if len(self.entries) > MAX_POISONS:
            self.entries.popitem(last=False)

    def recall(self, key: InputKey, now: float) -> Suspected | None:
        """What is remembered of an input, None when that is nothing."""
        if self._expires_first <= now:
            self._forget_expired(now)
        return self.entries.get(key)

    def forgive(self, key: InputKey) -> None:
        """A worker survived this input."""
        self.entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()
        self._expires_first = math.inf
        self.convicted_at = -math.inf

    def _forget_expired(self, now: float) -> None:
        for key in [key for key, known in self.entries.items() if known.until <= now]:
            del self.entries[key]
        self._expires_first = min((known.until for known in self.entries.values()), default=math.inf)
