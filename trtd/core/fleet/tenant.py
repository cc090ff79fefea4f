"""One tenant of the fleet: its phase, its workers, and whether a client may expect an answer of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from trtd.core.fleet.vocabulary import Phase, TenantSpec
from trtd.core.lifecycle import Child, State

HOPELESS = frozenset({State.QUARANTINED, State.STUCK})
"""States of a wanted worker out of which it does not come soon, nor by itself alone."""

MAX_REASON_LENGTH = 300


class Target(NamedTuple):
    """What a worker must have been spawned for to be up to date; `round` counts the restarts that operators want."""

    worker_digest: str
    round: int


class Availability(NamedTuple):
    """Whether a worker can be expected; if not, why, and the instant from which it is worth another try."""

    is_available: bool
    reason: str = ""
    retry_at: float | None = None


@dataclass(slots=True, eq=False)
class Tenant:
    """What the fleet knows of one tenant.

    Attributes:
        spec: its configuration.
        phase: what it does as a whole.
        gate_epoch: of the newest change of its gate; the gate is open while it is SERVING.
        is_gate_told: whether the router was told of that change.
        is_emptied: whether this drain's last answer is out, so that its workers may go.
        round: restarts that operators asked for.
        availability: as the router was last told.
        workers: names of its children by replica, those that are on their way out included.
    """

    spec: TenantSpec
    phase: Phase = Phase.SERVING
    gate_epoch: int = 0
    is_gate_told: bool = False
    is_emptied: bool = False
    round: int = 0
    availability: Availability | None = None
    workers: dict[int, str] = field(default_factory=dict)

    @property
    def needs_workers(self) -> bool:
        """Whether its workers shall live."""
        return not self.is_emptied

    @property
    def target(self) -> Target:
        """What its workers must have been spawned for."""
        return Target(self.spec.worker_digest, self.round)

    @property
    def active(self) -> list[str]:
        """Names of the workers that the configuration names."""
        return [name for replica, name in self.workers.items() if not self.is_surplus(replica)]

    def is_surplus(self, replica: int) -> bool:
        """Whether the configuration no longer names this replica."""
        return replica >= self.spec.replicas


def judge_availability(tenant: Tenant, workers: Iterable[Child]) -> Availability:
    """Whether any worker can be expected to serve soon.

    Args:
        tenant: whose.
        workers: those that the configuration names, each of them wanted as long as the tenant needs workers.
    """
    if not tenant.needs_workers:
        return Availability(False, f"tenant {tenant.spec.name} is drained")
    hopeless: list[Child] = []
    for child in workers:
        if child.state not in HOPELESS:
            return Availability(True)
        hopeless.append(child)
    probed = [child.deadline for child in hopeless if child.deadline is not None]
    retry_at = min(probed, default=None)
    newest = max(hopeless, key=lambda child: child.since)
    cause = " ".join(newest.last_fault.message.split()) if newest.last_fault else "stopped"
    reason = f"worker {newest.name} is {newest.state}: {cause}"
    return Availability(False, reason[:MAX_REASON_LENGTH], retry_at)
