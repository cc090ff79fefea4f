"""Requests that were sent again after a router's death, as its successor takes them: those it may have died of apart.

What was never sent again passes at once. What the former router did not have in hand is written down and passes, too.
What it had in hand is taken in groups, one after the other, and what stands in no group waits meanwhile: so the hand of
a router that dies holds its culprit and few others, and after some deaths the culprit alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable

from trtd.core.flight import MAX_IN_HAND, Flight
from trtd.core.ids import RequestId
from trtd.core.inflight import LONE_DEATHS_TO_CONVICT, MAX_PARTS
from trtd.core.requests import Request

WATCH_S = 10.0
"""How long after its start a router writes down what was sent again and is not suspected."""
ALONE_S = 5.0
"""How long what is in hand may keep others waiting. A router that lives on so long was not ended by it."""
MAX_OF_ONE_OWNER = MAX_IN_HAND // 4
"""Most requests of one client that are written down, so that there is room for those of others."""

Take = Callable[[Request, float], None]


class ResentRequests:
    """Stands before the dispatcher in a router whose predecessor died.

    Args:
        flight: what that one left.
        submit: the dispatcher's.
        convict: refuses a request that has ended routers, and its like.
        now: monotonic seconds.
    """

    def __init__(self, flight: Flight, submit: Take, convict: Take, now: float) -> None:
        self._flight = flight
        self._submit = submit
        self._convict = convict
        self._watches_until = now + WATCH_S
        self._group_size = max(1, math.ceil(len(flight.suspects) / MAX_PARTS))
        self._has_group = False
        self._taken_at = now
        self._waiting: dict[RequestId, Request] = {}
        self._owners: dict[RequestId, Hashable] = {}
        self._of_owners: Counter[Hashable] = Counter()

    @property
    def is_waiting(self) -> bool:
        """Whether a request waits here for others."""
        return bool(self._waiting)

    def submit(self, request: Request, now: float) -> None:
        """Take a request, or let it wait for its turn."""
        flight = self._flight
        lone_deaths = flight.suspects.get(request.id) if request.is_resent else None
        if not request.is_resent or request.id in flight.in_hand:
            self._submit(request, now)
        elif lone_deaths is not None and lone_deaths >= LONE_DEATHS_TO_CONVICT:
            self._convict(request, now)
        elif lone_deaths is None and now >= self._watches_until:
            self._submit(request, now)
        else:
            # One that waits already, and comes once more, comes on the connection that its answer is for.
            self._waiting[request.id] = request
            self.advance(now)

    def advance(self, now: float) -> None:
        """Take what may be taken now. To be called now and then while something waits."""
        suspects, in_hand = self._flight.suspects, self._flight.in_hand
        for request in [one for one in self._waiting.values() if one.deadline <= now]:
            self._pass(request, now)
        if in_hand and now - self._taken_at >= ALONE_S:
            for request_id in list(in_hand):
                self.let_go(request_id)
        waiting = [one for one in self._waiting.values() if one.id in suspects]
        if waiting:
            if not in_hand:
                self._has_group = True
                self._take(waiting[: self._group_size], now)
        elif not (in_hand and self._has_group):
            self._has_group = False
            self._take(list(self._waiting.values()), now)

    def note_answered(self, request_id: RequestId, now: float) -> None:
        """A request was answered, in whatever way."""
        if request_id in self._flight.in_hand:
            self.let_go(request_id)
            if self._waiting:
                self.advance(now)

    def let_go(self, request_id: RequestId) -> None:
        """Nothing more is held against a request."""
        self._flight.let_go(request_id)
        owner = self._owners.pop(request_id, None)
        if owner is not None:
            self._of_owners[owner] -= 1

    def _take(self, requests: list[Request], now: float) -> None:
        for request in requests:
            owner = request.owner
            if self._of_owners[owner] < MAX_OF_ONE_OWNER and self._flight.take(request.id):
                self._owners[request.id] = owner
                self._of_owners[owner] += 1
                self._taken_at = now
            self._pass(request, now)

    def _pass(self, request: Request, now: float) -> None:
        del self._waiting[request.id]
        self._submit(request, now)
