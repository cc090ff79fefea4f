"""Whose messages are read next: endpoints with input take turns, so that a flooded one gets its share and no more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from trtd.core.ids import TenantName
from trtd.core.scheduling import DeficitRoundRobin
from trtd.router.endpoints import Endpoint, Received, Source

MESSAGE_COST_BYTES = 8 * 1024
"""What a message costs its tenant's share besides its bytes."""
SKIPPED_FRAME_COST_BYTES = 256
"""What a frame costs that is read off and thrown away; its bytes were paid for by the sender alone."""
TURN_BYTES = 8 * MESSAGE_COST_BYTES
"""What one turn allows a tenant of weight 1."""
MAX_READS = 32
"""Reads in one turn of the router's loop, so that workers' results and the supervisor never wait for long."""


class ReadTurns:
    """The sources that may have input, in the fair order of their tenants."""

    def __init__(self) -> None:
        self._turns: DeficitRoundRobin[TenantName] = DeficitRoundRobin(TURN_BYTES)
        self._awake: dict[TenantName, deque[Source]] = {}

    def add(self, tenant: TenantName, weight: int) -> None:
        """A tenant is new, or its weight has changed."""
        if tenant in self._awake:
            self._turns.set_weight(tenant, weight)
        else:
            self._awake[tenant] = deque()
            self._turns.add(tenant, weight)

    def remove(self, tenant: TenantName) -> None:
        """Read nothing more of a tenant."""
        del self._awake[tenant]
        self._turns.remove(tenant)

    def drop(self, source: Source) -> None:
        """Read nothing more of one closed source."""
        awake = self._awake.get(source.endpoint.tenant)
        if awake is not None and source in awake:
            awake.remove(source)

    def wake(self, source: Source) -> None:
        """A source may have input."""
        tenant = source.endpoint.tenant
        awake = self._awake[tenant]
        if source not in awake:
            awake.append(source)
            self._turns.activate(tenant)

    @property
    def has_input(self) -> bool:
        """Whether a source may have input that was not read yet."""
        return self._turns.next() is not None

    def read(self, take: Callable[[Endpoint, Received], None]) -> None:
        """Hand messages to `take`, for one turn of the loop."""
        turns = self._turns
        for _ in range(MAX_READS):
            tenant = turns.next()
            if tenant is None:
                return
            awake = self._awake[tenant]
            if not awake:
                turns.deactivate(tenant)
                continue
            source = awake[0]
            received = source.read()
            if isinstance(received, Received):
                take(source.endpoint, received)
                turns.charge(tenant, MESSAGE_COST_BYTES + received.size)
                if source.port.has_input():
                    awake.rotate()
                    continue
            elif received is not None:
                turns.charge(tenant, received * SKIPPED_FRAME_COST_BYTES)
                continue
            awake.popleft()
            if not awake:
                turns.deactivate(tenant)
