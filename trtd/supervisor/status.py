"""The status record, made from the fleet's state and the facts; `trtd.wire.status` says what each key means.

Reading only, and at most a few dozen microseconds per child, so that a dashboard may ask as often as it likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from trtd.config.model import Tenant as TenantTable
from trtd.core.faults import Fault
from trtd.core.fleet import ROUTER, Fleet, Phase, Role, Tenant
from trtd.core.lifecycle import IN_SERVICE, Child, State
from trtd.supervisor.facts import ChildFacts, Facts, TenantFacts
from trtd.wire.settings import TenantEndpoint
from trtd.wire.status import (
    STATUS_VERSION,
    BarredStatus,
    ChildStatus,
    CounterStatus,
    DaemonStatus,
    DeviceStatus,
    EngineStatus,
    FaultStatus,
    ModelMemoryStatus,
    ModelStatus,
    RecentStatus,
    ReplacementStatus,
    Status,
    TenantStatus,
)
from trtd.wire.tensorrt import DeviceReport

ISOLATION = "process"
"""A worker process of its own for each tenant and replica."""
ISOLATION_MPS = "mps"
"""The same, but what they do on a device may go through one MPS server: a fault of one hits all."""
UNSIGNED = "unsigned"
"""The only word about an engine's signature so far: none is looked at."""


@dataclass(frozen=True, slots=True)
class About:
    """What does not change while the daemon runs, or only with its configuration.

    Attributes:
        pid: of the daemon.
        version: of trtd.
        started_at: monotonic instant of the start.
        config_files: that were read.
        runtime_dir: of all sockets.
        memory_limits: how limits are enforced, or why not by cgroup.
        endpoints: by tenant.
        tables: the configuration of each tenant.
        is_mps: whether workers are told of an MPS server.
    """

    pid: int
    version: str
    started_at: float
    config_files: tuple[str, ...]
    runtime_dir: str
    memory_limits: str
    endpoints: dict[str, TenantEndpoint]
    tables: dict[str, TenantTable]
    is_mps: bool = False


def make_status(
    fleet: Fleet, facts: Facts, about: About, *, now: float, wall: datetime, only: str | None = None
) -> Status:
    """The record at this instant.

    Args:
        fleet: the state.
        facts: what was seen.
        about: the daemon.
        now: monotonic seconds.
        wall: the same instant for people.
        only: one tenant, None for all.
    """
    tenants = [
        _tenant(fleet, facts, about, tenant, now)
        for name, tenant in sorted(fleet.tenants.items())
        if only is None or name == only
    ]
    router = fleet.children[ROUTER]
    is_healthy = _is_serving(router) and all(tenant["health"] == "ready" for tenant in tenants)
    return Status(
        v=STATUS_VERSION,
        at=_iso(wall),
        health="ready" if is_healthy else "degraded",
        is_ready=_is_serving(router) and all(t["is_ready"] for t in tenants if t["is_required"]),
        daemon=DaemonStatus(
            pid=about.pid,
            version=about.version,
            started_at=_iso(wall - timedelta(seconds=now - about.started_at)),
            uptime_s=_rounded(now - about.started_at),
            is_stopping=fleet.is_stopping,
            config_files=list(about.config_files),
            runtime_dir=about.runtime_dir,
            memory_limits=about.memory_limits,
        ),
        router=_child(router, facts.child(ROUTER), now),
        tenants=tenants,
    )


def _tenant(fleet: Fleet, facts: Facts, about: About, tenant: Tenant, now: float) -> TenantStatus:
    name = tenant.spec.name
    seen = facts.tenant(name, now)
    places = sorted(tenant.places.items(), key=lambda item: (list(Role).index(item[1].role), item[0]))
    children = [fleet.children[place.name] for _, place in places]
    members = [fleet.children[place.name] for place in tenant.members]
    endpoint = about.endpoints.get(name)
    table = about.tables.get(name)
    newest = _newest_described(children, facts)
    health = _health(tenant, members, seen)
    return TenantStatus(
        name=name,
        phase=str(tenant.phase),
        health=health,
        is_ready=health in {"ready", "degraded"}
        and _is_serving(fleet.children[ROUTER])
        and not seen.totals.unreachable,
        is_required=table.required if table else False,
        gate="open" if seen.is_open else "closed",
        is_available=seen.is_available,
        reason=seen.reason or seen.totals.unreachable,
        runtime=newest.runtime if newest else "",
        models=[
            ModelStatus(
                name=model.name,
                version=model.version,
                max_batch=model.max_batch,
                is_batched=model.is_batched,
                batching=model.batching,
            )
            for model in (newest.models if newest else ())
        ],
        workers=[
            _child(fleet.children[place.name], facts.child(place.name), now, str(place.role)) for _, place in places
        ],
        replacement=_replacement(fleet, tenant),
        queued=seen.totals.queued,
        leased=seen.totals.leased,
        held_bytes=seen.totals.held_bytes,
        arena_bytes=seen.totals.arena_bytes,
        arena_count=seen.totals.arena_count,
        arena_limit_bytes=endpoint.max_arena_bytes if endpoint else 0,
        connections=seen.totals.connections,
        connections_refused=seen.totals.connections_refused,
        counters=_counters(seen),
        poisons=seen.totals.poisons,
        barred=[
            BarredStatus(owner=owner, for_s=_rounded(for_s), deaths=deaths)
            for owner, for_s, deaths in seen.totals.barred
        ],
        recent=_recent(seen, now),
        address=endpoint.address if endpoint else "",
        tcp_address=endpoint.tcp_address if endpoint else None,
        isolation=ISOLATION_MPS if about.is_mps and table and needs_gpu(table) else ISOLATION,
        placement=_placement(table) if table else "",
        queue_limit=endpoint.limits.max_requests if endpoint else 0,
        engines=_engines(table) if table else [],
        plugin_libraries=_libraries(table) if table else [],
    )


def _replacement(fleet: Fleet, tenant: Tenant) -> ReplacementStatus | None:
    is_under_way = tenant.outdated or any(
        place.role in (Role.SUCCESSOR, Role.REPLACED) for place in tenant.places.values()
    )
    if tenant.phase is not Phase.SERVING or not is_under_way:
        return None
    progress = fleet.progress(tenant.spec.name)
    state = "failed" if progress.failure else "running"
    return ReplacementStatus(state=state, left=list(progress.left), reason=progress.failure)


def _placement(table: TenantTable) -> str:
    return f"gpu {table.tensorrt.device}" if needs_gpu(table) else "cpu"


def needs_gpu(table: TenantTable) -> bool:
    """Whether the tenant's workers work on a CUDA device."""
    return table.runtime.startswith("tensorrt")


def _libraries(table: TenantTable) -> list[str]:
    if table.runtime == "onnxruntime":
        return list(table.onnxruntime.custom_op_libraries)
    return list(table.tensorrt.plugin_libraries) if needs_gpu(table) else []


def _engines(table: TenantTable) -> list[EngineStatus]:
    return [
        EngineStatus(model=model.name or name, version=model.version, file=model.path, signature=UNSIGNED)
        for name, model in table.models.items()
    ]


def health_of(fleet: Fleet, facts: Facts, tenant: Tenant, now: float) -> str:
    """How a tenant is, in one word; the rest of its status takes a hundred times as long."""
    return _health(
        tenant, [fleet.children[place.name] for place in tenant.members], facts.tenant(tenant.spec.name, now)
    )


def _health(tenant: Tenant, members: list[Child], seen: TenantFacts) -> str:
    if tenant.phase is not Phase.SERVING:
        return str(tenant.phase)
    ready = [_is_serving(child) for child in members]
    if any(ready):
        return "ready" if all(ready) else "degraded"
    if any(child.state in IN_SERVICE for child in members) or seen.is_available:
        return "waiting"
    return "unavailable"


def _is_serving(child: Child) -> bool:
    return child.state is State.READY and not child.is_set_aside


def _newest_described(children: list[Child], facts: Facts) -> ChildFacts | None:
    described = [(child.generation, facts.child(child.name)) for child in children if facts.child(child.name).models]
    return max(described, key=lambda item: item[0])[1] if described else None


def _counters(seen: TenantFacts) -> CounterStatus:
    counters = seen.totals.counters
    return CounterStatus(
        accepted=counters["accepted"],
        answered=counters["answered"],
        failed=counters["failed"],
        refused=counters["refused"],
        resent=counters["resent"],
        replayed=counters["replayed"],
        expired=counters["expired"],
        stale=counters["stale"],
        convicted=counters["convicted"],
        excused=seen.excused,
        abandoned=counters["abandoned"],
    )


def _recent(seen: TenantFacts, now: float) -> RecentStatus:
    recent = seen.totals.recent(now)
    return RecentStatus(per_s=round(recent.per_s, 3), p50_s=_short(recent.p50_s), p99_s=_short(recent.p99_s))


def _child(child: Child, seen: ChildFacts, now: float, role: str = str(Role.MEMBER)) -> ChildStatus:
    is_waiting = child.state in (State.BACKOFF, State.QUARANTINED) and child.deadline is not None
    opens_at = now - child.restarts_policy.window_s
    return ChildStatus(
        name=child.name,
        state=str(child.state),
        desired=str(child.desired),
        since_s=_rounded(now - child.since),
        uptime_s=None if seen.spawned_at is None else _rounded(now - seen.spawned_at),
        pid=child.pid,
        generation=child.generation,
        restarts=child.restarts,
        deaths_in_window=sum(death.at > opens_at for death in child.deaths),
        device_deaths_in_window=sum(death.at > opens_at for death in child.device_deaths),
        restart_in_s=_rounded(max(0.0, (child.deadline or now) - now)) if is_waiting else None,
        is_stopped=child.is_set_aside,
        last_fault=_fault(child.last_fault),
        rss_bytes=seen.rss_bytes,
        peak_rss_bytes=seen.peak_rss_bytes,
        memory_limit_bytes=seen.limit_bytes,
        memory_enforcement=seen.enforcement,
        progress=seen.progress,
        in_flight=child.in_flight,
        recovery_s=_short(seen.recovery_s),
        load_s=_short(seen.load_s),
        history=[
            {
                "age_s": _rounded(now - move.at),
                "before": str(move.before),
                "event": move.event,
                "after": str(move.after),
            }
            for move in child.history
        ],
        device=_device(seen.device),
        role=role,
    )


def _device(report: DeviceReport | None) -> DeviceStatus | None:
    if report is None:
        return None
    return DeviceStatus(
        live_bytes=report.live_bytes,
        peak_bytes=report.peak_bytes,
        hard_bytes=report.hard_bytes,
        refused_count=report.refused_count,
        refused_bytes=report.refused_bytes,
        is_high=report.is_high,
        pool_bytes=report.pool_bytes,
        driver_bytes=report.driver_bytes,
        unaccounted_bytes=report.unaccounted_bytes,
        verdict=report.verdict,
        is_hard_derived=report.is_hard_derived,
        allocations=report.allocations,
        allocated_bytes=report.allocated_bytes,
        largest_bytes=report.largest_bytes,
        models=[
            ModelMemoryStatus(
                model=one.model,
                live_bytes=one.live_bytes,
                allocations=one.allocations,
                allocated_bytes=one.allocated_bytes,
                largest_bytes=one.largest_bytes,
                refused_count=one.refused_count,
            )
            for one in report.models
        ],
    )


def _fault(fault: Fault | None) -> FaultStatus | None:
    if fault is None:
        return None
    message = " ".join(fault.message.split())
    return FaultStatus(
        kind=str(fault.kind),
        message=message,
        blame=str(fault.blame),
        permanent=fault.permanent,
        domain=str(fault.domain),
        code=fault.code,
        texts=list(fault.texts),
    )


def _rounded(seconds: float) -> float:
    return round(seconds, 3)


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _iso(wall: datetime) -> str:
    return wall.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
