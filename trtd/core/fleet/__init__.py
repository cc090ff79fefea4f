"""Every child and every tenant: what operators and the configuration want, turned into lifecycles and gates.

`Fleet.handle(event, now)` is the supervisor's whole mind. It steps the children's lifecycles (`trtd.core.lifecycle`),
keeps each tenant's phase, and returns effects in the order in which the shell has to perform them. When the router is
restarted, everything it has to know is told again.

The words are in `vocabulary`, one tenant in `tenant`, the class in `fleet`. Left to others: performing effects
(`trtd.supervisor`), requests and leases (`trtd.core.dispatch`).
"""

from __future__ import annotations

from trtd.core.fleet.fleet import Fleet, worker_name
from trtd.core.fleet.tenant import Availability, Failure, Place, Role, Target, Tenant
from trtd.core.fleet.vocabulary import (
    ROUTER,
    AdmitWorker,
    ChildEffect,
    ChildEvent,
    CloseWorker,
    ConfigApplied,
    ConfigureTenant,
    DrainRequested,
    FleetEffect,
    FleetEvent,
    ForgetTenant,
    Phase,
    Replacement,
    ResumeRequested,
    RevokeWorker,
    SetAvailability,
    SetGate,
    SetWorkerAside,
    ShutdownRequested,
    TenantEmptied,
    TenantRestartRequested,
    TenantSpec,
    TimePassed,
)

__all__ = [
    "ROUTER",
    "AdmitWorker",
    "Availability",
    "ChildEffect",
    "ChildEvent",
    "CloseWorker",
    "ConfigApplied",
    "ConfigureTenant",
    "DrainRequested",
    "Failure",
    "Fleet",
    "FleetEffect",
    "FleetEvent",
    "ForgetTenant",
    "Phase",
    "Place",
    "Replacement",
    "ResumeRequested",
    "RevokeWorker",
    "Role",
    "SetAvailability",
    "SetGate",
    "SetWorkerAside",
    "ShutdownRequested",
    "Target",
    "Tenant",
    "TenantEmptied",
    "TenantRestartRequested",
    "TenantSpec",
    "TimePassed",
    "worker_name",
]
