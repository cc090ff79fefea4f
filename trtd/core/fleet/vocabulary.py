"""The words of the fleet: a tenant's phase and specification, the events that reach the fleet and its effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from trtd.core import lifecycle
from trtd.core.faults import Fault
from trtd.core.ids import TenantName, WorkerId
from trtd.core.lifecycle import Timeouts
from trtd.core.patience import Sight
from trtd.core.restarts import RestartPolicy

ROUTER = "router"
"""The name of the router among the children; a worker's name is `str(WorkerKey)`."""


class Phase(StrEnum):
    """What a tenant is doing as a whole.

    SERVING takes requests. DRAINING refuses new ones and finishes the accepted ones (workers live, and are replaced
    when they die, until the last answer is out). DRAINED has no worker left and waits for `resume`. REMOVING is
    DRAINING of a tenant that the configuration no longer names; it vanishes when it is drained.
    """

    SERVING = "serving"
    DRAINING = "draining"
    DRAINED = "drained"
    REMOVING = "removing"


class Replacement(StrEnum):
    """How a tenant's workers are replaced on request.

    SUCCESSOR_FIRST starts the successor, and the old worker goes when it is ready; one that cannot become ready changes
    nothing. STOP_FIRST never has one worker more than wanted, for hosts whose memory does not allow it.
    """

    SUCCESSOR_FIRST = "successor-first"
    STOP_FIRST = "stop-first"


@dataclass(frozen=True, slots=True)
class TenantSpec:
    """What the fleet needs to know of one tenant's configuration.

    Attributes:
        name: the tenant.
        replicas: workers wanted.
        timeouts: patience with its workers.
        restarts: policy for its workers.
        worker_digest: changes when the workers must be replaced to obey the configuration.
        router_digest: changes when the router must be told.
        replacement: how its workers are replaced on request.
    """

    name: TenantName
    replicas: int
    timeouts: Timeouts
    restarts: RestartPolicy
    worker_digest: str
    router_digest: str
    replacement: Replacement = Replacement.SUCCESSOR_FIRST


# Events


@dataclass(frozen=True, slots=True)
class ChildEvent:
    """Something happened to one child."""

    name: str
    event: lifecycle.Event


@dataclass(frozen=True, slots=True)
class ConfigApplied:
    """The configuration names exactly these tenants now (the first one starts the fleet)."""

    tenants: tuple[TenantSpec, ...]


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """An operator drains one tenant."""

    tenant: TenantName


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """An operator lets a tenant serve again: out of DRAINING, DRAINED, or its workers' QUARANTINED.

    A replacement that failed is tried again.
    """

    tenant: TenantName


@dataclass(frozen=True, slots=True)
class TenantRestartRequested:
    """An operator replaces a tenant's workers one after the other; its gate stays open."""

    tenant: TenantName


@dataclass(frozen=True, slots=True)
class TenantEmptied:
    """The router says that a tenant whose gate is closed has nothing queued and nothing leased.

    `epoch` is that of the SetGate that closed it; the end of an earlier drain means nothing.
    """

    tenant: TenantName
    epoch: int


@dataclass(frozen=True, slots=True)
class ShutdownRequested:
    """Drain every tenant, then stop every worker, then the router. A second one, or `forced`, kills at once."""

    forced: bool = False


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The instant named by `next_deadline` has come, and everything that the children said was heard.

    Attributes:
        sights: what the kernel says of the processes of those children that are due (see `Fleet.due`), by name.
    """

    sights: Mapping[str, Sight] = field(default_factory=dict)


FleetEvent = (
    ChildEvent
    | ConfigApplied
    | DrainRequested
    | ResumeRequested
    | TenantRestartRequested
    | TenantEmptied
    | ShutdownRequested
    | TimePassed
)

# Effects


@dataclass(frozen=True, slots=True)
class ChildEffect:
    """Perform a lifecycle effect on the child's process, or log an event that could not be."""

    name: str
    effect: (
        lifecycle.Spawn
        | lifecycle.AskToStop
        | lifecycle.KillGroup
        | lifecycle.SetAside
        | lifecycle.TakeBack
        | lifecycle.IllegalEvent
    )


@dataclass(frozen=True, slots=True)
class ConfigureTenant:
    """Tell the router of a tenant, new or changed: limits, endpoints, who may use it. Gate and availability follow."""

    tenant: TenantName


@dataclass(frozen=True, slots=True)
class ForgetTenant:
    """Tell the router to close a tenant's endpoints for good."""

    tenant: TenantName


@dataclass(frozen=True, slots=True)
class SetGate:
    """Tell the router whether a tenant takes new requests; closed, TenantEmptied is due when it is empty.

    `epoch` grows with each change of the gate and comes back in TenantEmptied. It may be told again unchanged.
    """

    tenant: TenantName
    is_open: bool
    epoch: int


@dataclass(frozen=True, slots=True)
class SetAvailability:
    """Tell the router whether any worker of a tenant can be expected.

    If none can, queued and new requests get a typed error with what is `told`; the reason is for operators.
    """

    tenant: TenantName
    is_available: bool
    reason: str
    retry_after_s: float | None
    told: str = ""


@dataclass(frozen=True, slots=True)
class AdmitWorker:
    """Tell the router that the worker of this life, and this pid, may be given work."""

    worker: WorkerId
    pid: int


@dataclass(frozen=True, slots=True)
class CloseWorker:
    """Tell the router to give the worker nothing new; Emptied is due."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class RevokeWorker:
    """Tell the router that the worker is gone and its leases go to a successor; once for each AdmitWorker.

    A fault of kind REQUESTED means that nothing was wrong with it: no request is suspected.
    """

    worker: WorkerId
    fault: Fault


@dataclass(frozen=True, slots=True)
class SetWorkerAside:
    """Tell the router that the worker is stopped: its leases go to others, and it is admitted when it comes back."""

    worker: WorkerId


FleetEffect = (
    ChildEffect
    | ConfigureTenant
    | ForgetTenant
    | SetGate
    | SetAvailability
    | AdmitWorker
    | CloseWorker
    | RevokeWorker
    | SetWorkerAside
)
