"""What the router is told of tenants and workers, built from what the fleet knows. The fleet decides when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trtd.core.fleet.tenant import Tenant
from trtd.core.fleet.vocabulary import (
    AdmitWorker,
    CloseWorker,
    ConfigureTenant,
    FleetEffect,
    Phase,
    SetAvailability,
    SetGate,
)
from trtd.core.ids import WorkerId, WorkerKey
from trtd.core.lifecycle import Child, State


def gate(tenant: Tenant) -> SetGate:
    """Whether the tenant takes requests."""
    return SetGate(tenant.spec.name, tenant.phase is Phase.SERVING, tenant.gate_epoch)


def availability(tenant: Tenant, now: float) -> list[FleetEffect]:
    """Whether a worker can be expected; nothing as long as that was not judged."""
    if tenant.availability is None:
        return []
    is_available, reason, retry_at, told = tenant.availability
    retry_after_s = None if retry_at is None else max(0.0, retry_at - now)
    return [SetAvailability(tenant.spec.name, is_available, reason, retry_after_s, told)]


def configuration(tenant: Tenant, now: float) -> list[FleetEffect]:
    """The tenant as a whole, without its workers."""
    return [ConfigureTenant(tenant.spec.name), *availability(tenant, now), gate(tenant)]


def worker(key: WorkerKey, child: Child) -> list[FleetEffect]:
    """What a worker may be given, as far as the router has to know of it at all."""
    life = WorkerId(*key, child.generation)
    if child.state is State.READY and child.pid is not None:
        return [AdmitWorker(life, child.pid)]
    if child.state is State.DRAINING:
        return [CloseWorker(life)]
    return []


def everything(
    tenants: Iterable[Tenant], children: Mapping[str, Child], keys: Mapping[str, WorkerKey], now: float
) -> list[FleetEffect]:
    """All that a router has to know which knows nothing yet."""
    effects: list[FleetEffect] = []
    for tenant in tenants:
        effects.extend(configuration(tenant, now))
        for place in tenant.places.values():
            effects.extend(worker(keys[place.name], children[place.name]))
    return effects
