"""Whose messages are read next: endpoints with input take turns, so that a flooded one gets its share and no more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from trtd.core.ids import TenantName
from trtd.core.scheduling import DeficitRoundRobin
from trtd.router.endpoints import AnySource, Endpoint
from trtd.router.guests import Received

MESSAGE_COST_BYTES = 8 * 1024
"""What a message costs its tenant's share besides its bytes."""
SKIPPED_FRAME_COST_BYTES = 256
"""What a frame costs that is read off and thrown away; its bytes were paid for by the sender alone."""
TURN_BYTES = 4 * MESSAGE_COST_BYTES
"""What one turn allows a tenant of weight 1."""
MAX_READS = 32
"""Requests read in one turn of the router's loop, so that workers' results and the supervisor never wait for long."""
MAX_READ_S = 0.002
"""How long that may take: a message with a very long header takes as long as dozens of common ones."""
MAX_ASKED = 4
"""Messages of a turn after which is asked whether there is another one: a read in vain costs as much as four questions,
and few messages a turn are usual."""


class ReadTurns:
    """The sources that may have input, in the fair order of their tenants.

    While there is only one, nobody can be treated unfairly: it is read without keeping accounts.

    Args:
        clock: monotonic seconds.

    Attributes:
        has_input: whether a source may have input that was not read yet.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.has_input = False
        self._clock = clock
        self._lone: AnySource | None = None
        self._turns: DeficitRoundRobin[TenantName] = DeficitRoundRobin(TURN_BYTES)
        self._awake: dict[TenantName, deque[AnySource]] = {}

    def add(self, tenant: TenantName, weight: int) -> None:
        """A tenant is new, or its weight has changed."""
        if tenant in self._awake:
            self._turns.set_weight(tenant, weight)
        else:
            self._awake[tenant] = deque()
            self._turns.add(tenant, weight)

    def remove(self, tenant: TenantName) -> None:
        """Read nothing more of a tenant, whose sources were dropped."""
        del self._awake[tenant]
        self._turns.remove(tenant)

    def drop(self, source: AnySource) -> None:
        """Read nothing more of one closed source."""
        if source is self._lone:
            self._lone = None
            self.has_input = False
            return
        tenant = source.endpoint.tenant
        awake = self._awake.get(tenant)
        if awake is not None and source in awake:
            awake.remove(source)
            if not awake:
                self._turns.deactivate(tenant)
                self.has_input = len(self._turns) > 0

    def wake(self, source: AnySource) -> None:
        """A source may have input."""
        lone = self._lone
        if lone is source:
            return
        if not self.has_input:
            self._lone = source
            self.has_input = True
            return
        if lone is not None:
            self._lone = None
            self._line_up(lone)
        self._line_up(source)

    def _line_up(self, source: AnySource) -> None:
        tenant = source.endpoint.tenant
        awake = self._awake[tenant]
        if source not in awake:
            awake.append(source)
            self._turns.activate(tenant)

    def read(self, take: Callable[[Endpoint, Received], int]) -> None:
        """Hand messages to `take`, for one turn of the loop; it says how many requests were in each."""
        lone = self._lone
        if lone is None:
            self._read_in_turns(take)
        elif self._read_lone(lone, take):
            self._lone = None
            self.has_input = False

    def _read_lone(self, source: AnySource, take: Callable[[Endpoint, Received], int]) -> bool:
        """Read the only source there is; whether nothing more is there."""
        endpoint, clock = source.endpoint, self._clock
        until = clock() + MAX_READ_S
        reads = messages = 0
        while reads < MAX_READS and (not messages or clock() < until):
            received = source.read()
            if received is None:
                return True
            messages += 1
            if isinstance(received, int):
                reads += 1
                continue
            reads += take(endpoint, received)
            if messages <= MAX_ASKED and not source.port.has_input():
                return True
        return False

    def _read_in_turns(self, take: Callable[[Endpoint, Received], int]) -> None:
        turns = self._turns
        left = MAX_READS
        until = self._clock() + MAX_READ_S
        while left > 0:
            tenant = turns.next()
            if tenant is None:
                self.has_input = False
                return
            awake = self._awake[tenant]
            if not awake:
                turns.deactivate(tenant)
                continue
            reads, cost, is_empty = self._read_source(awake[0], take, left, turns.allowance(tenant), until)
            left -= reads
            turns.charge(tenant, cost)
            if is_empty:
                awake.popleft()
            else:
                awake.rotate()
            if not awake:
                turns.deactivate(tenant)
            if self._clock() >= until:
                return

    def _read_source(
        self, source: AnySource, take: Callable[[Endpoint, Received], int], most: int, allowance: float, until: float
    ) -> tuple[int, float, bool]:
        """Read one source within an allowance: the reads, their cost, and whether nothing more is there."""
        cost = 0
        reads = messages = 0
        while reads < most and cost < allowance and (not reads or self._clock() < until):
            received = source.read()
            reads += 1
            messages += 1
            if received is None:
                return reads, cost, True
            if isinstance(received, int):
                cost += received * SKIPPED_FRAME_COST_BYTES
                continue
            size = received[3]
            taken = take(source.endpoint, received)
            cost += MESSAGE_COST_BYTES * taken + size
            reads += taken - 1
            if messages <= MAX_ASKED and not source.port.has_input():
                return reads, cost, True
        return reads, cost, False
