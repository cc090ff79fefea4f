"""One tenant of the fleet: its phase, the places of its workers, and whether a client may expect an answer of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from trtd.core.disclosure import for_clients
from trtd.core.faults import Fault
from trtd.core.fleet.vocabulary import Phase, TenantSpec
from trtd.core.lifecycle import Child, State

HOPELESS = frozenset({State.QUARANTINED, State.STUCK})
"""States of a wanted worker out of which it does not come soon, nor by itself alone."""

MAX_REASON_LENGTH = 300


class Target(NamedTuple):
    """What a worker must have been spawned for to be up to date; `round` counts the restarts that operators want."""

    worker_digest: str
    round: int


class Role(StrEnum):
    """What a place is for.

    MEMBER is one of the workers that the configuration asks for. SUCCESSOR is started beside them and becomes a member
    when it is ready. REPLACED is a former member whose successor is ready, SURPLUS is one that is not wanted any more;
    both finish what they hold, and their places are forgotten.
    """

    MEMBER = "member"
    SUCCESSOR = "successor"
    REPLACED = "replaced"
    SURPLUS = "surplus"


@dataclass(slots=True, eq=False)
class Place:
    """One worker's place.

    Attributes:
        name: of the child in it.
        target: what its next life is spawned for, and the present one was, unless that is to go.
        role: what it is for.
        has_served: whether a life with this target became ready. Such a place is given up for a ready successor only;
            it crashes, and comes back, with the settings that it proved.
    """

    name: str
    target: Target
    role: Role = Role.MEMBER
    has_served: bool = False

    @property
    def is_leaving(self) -> bool:
        """Whether it is forgotten as soon as no process is in it."""
        return self.role in (Role.REPLACED, Role.SURPLUS)


@dataclass(frozen=True, slots=True)
class Failure:
    """A replacement that came to nothing.

    Attributes:
        worker: name of the successor that did not become ready; its place is forgotten.
        fault: why.
        at: when it was given up.
    """

    worker: str
    fault: Fault
    at: float

    def __str__(self) -> str:
        text = f"successor {self.worker} did not become ready: {' '.join(self.fault.message.split())}"
        return text[:MAX_REASON_LENGTH]


class Availability(NamedTuple):
    """Whether a worker can be expected; if not, why, for operators and for clients, and when to try again."""

    is_available: bool
    reason: str = ""
    retry_at: float | None = None
    told: str = ""


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
        places: of its workers by replica number, those that come and go included.
        last_generation: highest of the lives in places that are forgotten. One with the same number goes on above it,
            so that late frames stay recognisable.
        failure: why the replacement of its outdated workers was given up; None while none was. A reload, a restart and
            a resume try again.
    """

    spec: TenantSpec
    phase: Phase = Phase.SERVING
    gate_epoch: int = 0
    is_gate_told: bool = False
    is_emptied: bool = False
    round: int = 0
    availability: Availability | None = None
    places: dict[int, Place] = field(default_factory=dict)
    last_generation: int = 0
    failure: Failure | None = None

    @property
    def needs_workers(self) -> bool:
        """Whether its workers shall live."""
        return not self.is_emptied

    @property
    def target(self) -> Target:
        """What its workers must have been spawned for."""
        return Target(self.spec.worker_digest, self.round)

    @property
    def workers(self) -> dict[int, str]:
        """Names of its children by replica number, those included that come and go."""
        return {replica: place.name for replica, place in sorted(self.places.items())}

    @property
    def members(self) -> list[Place]:
        """Places of the workers that the configuration asks for, by number."""
        return [place for _, place in sorted(self.places.items()) if place.role is Role.MEMBER]

    @property
    def hopes(self) -> list[str]:
        """Names of the workers that serve or may come to serve: members, and the successor of one of them."""
        return [place.name for place in self.places.values() if not place.is_leaving]

    @property
    def successor(self) -> Place | None:
        """The place of the worker that is to replace a member, while there is one."""
        return next((place for place in self.places.values() if place.role is Role.SUCCESSOR), None)

    @property
    def outdated(self) -> list[Place]:
        """Members that were not yet spawned for the present configuration and the newest restart asked for."""
        target = self.target
        return [place for place in self.members if place.target != target]


def judge_availability(tenant: Tenant, workers: Iterable[Child]) -> Availability:
    """Whether any worker can be expected to serve soon.

    Args:
        tenant: whose.
        workers: members and successor, each of them wanted as long as the tenant needs workers.
    """
    if not tenant.needs_workers:
        reason = f"tenant {tenant.spec.name} is drained"
        return Availability(False, reason, told=reason)
    hopeless: list[Child] = []
    for child in workers:
        if child.state not in HOPELESS:
            return Availability(True)
        hopeless.append(child)
    probed = [child.deadline for child in hopeless if child.deadline is not None]
    retry_at = min(probed, default=None)
    newest = max(hopeless, key=lambda child: child.since)
    cause = " ".join(newest.last_fault.message.split()) if newest.last_fault else "stopped"
    what = f"worker {newest.name} is {newest.state}"
    reason = f"{what}: {cause}"[:MAX_REASON_LENGTH]
    return Availability(False, reason, retry_at, f"{what}: {for_clients(newest.last_fault)}")
