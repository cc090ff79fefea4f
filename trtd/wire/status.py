"""The status record: what `trtd status --json` prints and what metrics, health checks and dashboards are made of.

Versioned and stable: within a version keys are added, never removed nor given another meaning. Written by
`trtd.supervisor.status` alone. Times are seconds, `_at` is wall-clock time (ISO 8601, UTC), sizes are bytes; None
means that there is nothing to tell yet.
"""

from __future__ import annotations

from typing import TypedDict

STATUS_VERSION = 1


class FaultStatus(TypedDict):
    """Why a process had to go.

    Attributes:
        kind: the cause in one word.
        message: the cause in one line.
        blame: who pays: `tenant`, `daemon`, `device` or `client`.
        permanent: whether a new process would fail alike.
        domain: what may share the damage: `process`, `sharing` (an MPS server's clients) or `device`.
        code: signal, exit code or CUDA code; 0 where there is none.
        texts: what the layers below said of it.
    """

    kind: str
    message: str
    blame: str
    permanent: bool
    domain: str
    code: int
    texts: list[str]


class HistoryStatus(TypedDict):
    """One move of a child's lifecycle; `age_s` seconds ago."""

    age_s: float
    before: str
    event: str
    after: str


class ModelStatus(TypedDict):
    """A model as the newest ready worker described it.

    Attributes:
        name: of it.
        version: likewise.
        max_batch: most items that are joined to one run; 0 where requests run alone.
        is_batched: whether requests are joined.
        batching: why: `proven`, `forced`, `off`, or `alone: REASON`.
    """

    name: str
    version: str
    max_batch: int
    is_batched: bool
    batching: str


class EngineStatus(TypedDict):
    """A file that the tenant's workers load and run.

    Attributes:
        model: name under which it is served.
        version: likewise.
        file: its path.
        signature: `unsigned`: nobody vouches for the file, and whoever can write it decides what runs.
    """

    model: str
    version: str
    file: str
    signature: str


class ModelMemoryStatus(TypedDict):
    """Device memory of one model in one worker; see `trtd.wire.tensorrt.ModelMemory`, which has the same names."""

    model: str
    live_bytes: int
    allocations: int
    allocated_bytes: int
    largest_bytes: int
    refused_count: int


class DeviceStatus(TypedDict):
    """Device memory of one worker; see `trtd.wire.tensorrt.DeviceReport`, which has the same names."""

    live_bytes: int
    peak_bytes: int
    hard_bytes: int
    refused_count: int
    refused_bytes: int
    is_high: bool
    pool_bytes: int
    driver_bytes: int | None
    unaccounted_bytes: int | None
    verdict: str
    is_hard_derived: bool
    allocations: int
    allocated_bytes: int
    largest_bytes: int
    models: list[ModelMemoryStatus]


class ChildStatus(TypedDict):
    """One supervised place: the router, or one replica of a tenant.

    Attributes:
        name: `router`, or `tenant/replica`.
        state: word of the lifecycle.
        desired: `up` or `down`.
        since_s: time in this state.
        uptime_s: age of the process.
        pid: of the process.
        generation: of the newest spawn.
        restarts: spawns beyond the first.
        deaths_in_window: deaths that count against the restart budget now.
        device_deaths_in_window: those blamed on a device, which have a budget of their own.
        restart_in_s: time until the next restart, in BACKOFF or QUARANTINED.
        is_stopped: whether it stands still, stopped by a signal or a debugger, and its work goes to others meanwhile.
        last_fault: newest fault of any life.
        rss_bytes: resident memory, as the child last said.
        peak_rss_bytes: highest of this process.
        memory_limit_bytes: 0 for none.
        memory_enforcement: `cgroup` (the kernel ends it), `rss` (it watches itself and leaves) or `none`.
        progress: batches completed by this process; for the router, turns of its loop.
        in_flight: batches begun and not completed.
        recovery_s: last time from a death to the successor's main().
        load_s: time that the process needed to become ready.
        history: last moves, newest last.
        device: device memory; None without a device, and until the first beat.
        role: `member`; of a worker beside those that the tenant is to have `successor` (takes over when it is ready),
            `replaced` (finishes what it holds) or `surplus` (is not wanted any more).
    """

    name: str
    state: str
    desired: str
    since_s: float
    uptime_s: float | None
    pid: int | None
    generation: int
    restarts: int
    deaths_in_window: int
    device_deaths_in_window: int
    restart_in_s: float | None
    is_stopped: bool
    last_fault: FaultStatus | None
    rss_bytes: int
    peak_rss_bytes: int
    memory_limit_bytes: int
    memory_enforcement: str
    progress: int
    in_flight: int
    recovery_s: float | None
    load_s: float | None
    history: list[HistoryStatus]
    device: DeviceStatus | None
    role: str


class ReplacementStatus(TypedDict):
    """Workers that are being replaced on request, by a reload or a restart.

    Attributes:
        state: `running`, or `failed`: it will not come to its end by itself, and what is outdated goes on as it is.
        left: workers that are outdated, not ready, or on their way out.
        reason: why it failed; empty while it runs.
    """

    state: str
    left: list[str]
    reason: str


class CounterStatus(TypedDict):
    """Since the daemon's start: accepted = answered + failed + abandoned + queued + leased.

    `abandoned` were held by a router that died; their clients sent them again and they were accepted anew. `convicted`
    are inputs that ended workers, and `excused` the deaths that are charged to nobody because of such inputs.
    """

    accepted: int
    answered: int
    failed: int
    refused: int
    resent: int
    replayed: int
    expired: int
    stale: int
    abandoned: int
    convicted: int
    excused: int


class BarredStatus(TypedDict):
    """A client of which nothing is taken for a while, because inputs of it ended workers again and again.

    Attributes:
        owner: `uid:N` or `key:NAME`.
        for_s: for how long, as the router last said.
        deaths: workers that died with its inputs alone, as far as they are remembered.
    """

    owner: str
    for_s: float
    deaths: int


class RecentStatus(TypedDict):
    """The last minute: answers per second, and the time from receipt to answer."""

    per_s: float
    p50_s: float | None
    p99_s: float | None


class TenantStatus(TypedDict):
    """One tenant.

    Attributes:
        name: the tenant. phase: `serving`, `draining`, `drained` or `removing`. health: `ready` (all workers),
        `degraded` (some), `waiting` (none now, one is expected), `unavailable`, or the phase
            where it is not `serving`.
        is_ready: whether a request would be taken and run now.
        is_required: whether the daemon counts as ready only while this tenant is.
        gate: `open` or `closed`.
        is_available: whether a worker can be expected.
        reason: why not, or why nobody can connect.
        runtime: name and version of the runtime, from the newest ready worker.
        models: what it serves.
        workers: members by number, then those that come and go. replacement: of outdated workers; None while there are
            none.
        queued: requests that wait.
        leased: requests at workers.
        held_bytes: payload of both.
        arena_bytes: shared memory that its clients have offered. arena_count: in how many arenas.
        arena_limit_bytes: most bytes of it; 0 where none is taken.
        connections: of clients. connections_refused: those that were sent away, since the daemon's start.
        counters: since the daemon's start.
        poisons: inputs that are remembered as having ended workers, or as suspected of it.
        barred: clients of which nothing is taken for now.
        recent: last minute.
        address: where clients of this host connect.
        tcp_address: where others do.
        isolation: what keeps the tenant apart: `process`; `mps` where faults may be shared through an MPS server.
        placement: what its models run on: `cpu`, or `gpu N` for a device as the worker numbers them.
        queue_limit: most requests that may wait or run.
        engines: the configured files, also while no worker has loaded them.
        plugin_libraries: files whose code runs in its workers besides.
    """

    name: str
    phase: str
    health: str
    is_ready: bool
    is_required: bool
    gate: str
    is_available: bool
    reason: str
    runtime: str
    models: list[ModelStatus]
    workers: list[ChildStatus]
    replacement: ReplacementStatus | None
    queued: int
    leased: int
    held_bytes: int
    arena_bytes: int
    arena_count: int
    arena_limit_bytes: int
    connections: int
    connections_refused: int
    counters: CounterStatus
    poisons: int
    barred: list[BarredStatus]
    recent: RecentStatus
    address: str
    tcp_address: str | None
    isolation: str
    placement: str
    queue_limit: int
    engines: list[EngineStatus]
    plugin_libraries: list[str]


class DaemonStatus(TypedDict):
    """The supervisor itself. `memory_limits` says why limits are not by cgroup, where they are not."""

    pid: int
    version: str
    started_at: str
    uptime_s: float
    is_stopping: bool
    config_files: list[str]
    runtime_dir: str
    memory_limits: str


class Status(TypedDict):
    """The whole record.

    Attributes:
        v: `STATUS_VERSION`.
        at: when it was made.
        health: `ready` when the router and all tenants are, else `degraded`.
        is_ready: whether every required tenant would take and run a request now.
        daemon: the supervisor.
        router: its child in front.
        tenants: by name.
    """

    v: int
    at: str
    health: str
    is_ready: bool
    daemon: DaemonStatus
    router: ChildStatus
    tenants: list[TenantStatus]


def summary(status: Status) -> str:
    """The state of everything in one short line: for the last lines of `trtd status` and for the host's own tools."""
    tenants, router = status["tenants"], status["router"]
    ready = sum(tenant["health"] == "ready" for tenant in tenants)
    rate = sum(tenant["recent"]["per_s"] for tenant in tenants)
    degraded = sum(tenant["health"] == "degraded" for tenant in tenants)
    # A degraded tenant is served, by some of its workers.
    serving = f", {degraded} more with a part of the workers" if degraded else ""
    parts = [f"{ready} of {len(tenants)} tenants ready{serving}, {rate:.4g} requests/s"]
    parts += [f"{tenant['name']} {tenant['health']}" for tenant in tenants if tenant["health"] != "ready"]
    for tenant in tenants:
        # A daemon of an earlier version does not tell.
        if (replacement := tenant.get("replacement")) and replacement["state"] == "failed":
            parts.append(f"{tenant['name']} was not replaced")
    if router["state"] != "ready":
        parts.append(f"router {router['state']}")
    if status["daemon"]["is_stopping"]:
        parts.append("stopping")
    return "; ".join(parts)
