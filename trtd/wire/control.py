"""The supervisor's channel to each child: one SOCK_SEQPACKET socketpair, one msgpack message per packet.

Messages are frozen dataclasses. `encode` and `decode` cover them and the settings of `trtd.wire.settings`; decoding is strict
(unknown tags, missing or extra fields and wrong types raise `Malformed`), because a child runs code that came with a model.
"""

from __future__ import annotations

from dataclasses import dataclass

from trtd.core.faults import Fault
from trtd.wire.messages import ModelDescription
from trtd.wire.settings import TenantEndpoint

MAX_PACKET_BYTES = 128 * 1024

# child to supervisor


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a child: our code runs. `main_at` is CLOCK_MONOTONIC at the start of its main()."""

    generation: int
    pid: int
    main_at: float


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """Models are loaded, warmed up and have given their known answers.

    Attributes:
        generation: whose.
        models: what it serves.
        runtime: name and version of the runtime.
        load_s: seconds from hello to now.
    """

    generation: int
    models: tuple[ModelDescription, ...]
    runtime: str
    load_s: float


@dataclass(frozen=True, slots=True)
class RouterReady:
    """The router listens for workers and waits for its tenants."""

    generation: int


@dataclass(frozen=True, slots=True)
class WorkerBeat:
    """A worker's life sign.

    Attributes:
        generation: whose.
        progress: batches completed since its start.
        in_flight: batches begun and not completed.
        rss_bytes: resident memory.
        peak_rss_bytes: highest so far.
    """

    generation: int
    progress: int
    in_flight: int
    rss_bytes: int
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True)
class FaultReport:
    """A worker's last words before it leaves, or the reason why it cannot become ready."""

    generation: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class TenantStats:
    """The router's numbers for one tenant; counters count from the router's start.

    Attributes:
        tenant: whose.
        queued: requests waiting.
        leased: requests at workers.
        held_bytes: payload of both.
        accepted: see `trtd.core.dispatch.TenantCounters`, also for the following.
        answered: results and typed refusals that came from workers.
        failed: accepted, then answered with an error of the router's own.
        refused: never accepted.
        resent: known already.
        replayed: leased again after a worker's death.
        expired: of the failed, those whose deadline passed.
        stale: answers dropped because their lease was not theirs any more.
        outcomes: answers by (model, outcome), outcome `ok` or an error code.
        duration_buckets: cumulative histogram of seconds from receipt to answer, bounds in `trtd.core.histogram`.
        duration_sum_s: sum of the same.
        queue_buckets: likewise for the time until a worker had it.
        queue_sum_s: sum of the same.
    """

    tenant: str
    queued: int
    leased: int
    held_bytes: int
    accepted: int
    answered: int
    failed: int
    refused: int
    resent: int
    replayed: int
    expired: int
    stale: int
    outcomes: tuple[tuple[str, str, int], ...]
    duration_buckets: tuple[int, ...]
    duration_sum_s: float
    queue_buckets: tuple[int, ...]
    queue_sum_s: float


@dataclass(frozen=True, slots=True)
class RouterBeat:
    """The router's life sign: `progress` counts turns of its loop."""

    generation: int
    progress: int
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class RouterStats:
    """One tenant's numbers; sent for each tenant about once a second and before TenantEmptied."""

    generation: int
    stats: TenantStats


@dataclass(frozen=True, slots=True)
class TenantIsEmpty:
    """The tenant's gate is closed and its last answer has left."""

    tenant: str


@dataclass(frozen=True, slots=True)
class WorkerIsEmpty:
    """The closed worker holds no lease."""

    tenant: str
    replica: int
    generation: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Answer to AskUnfinished: ids of the tenant's requests that have no answer yet, at most 1,000, in hex."""

    tenant: str
    request_ids: tuple[str, ...]
    total: int


# supervisor to child


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish what runs, then exit with code 0."""


@dataclass(frozen=True, slots=True)
class TenantConfigured:
    """To the router: a tenant, new or changed. Its gate is closed until GateSet says otherwise."""

    endpoint: TenantEndpoint


@dataclass(frozen=True, slots=True)
class TenantForgotten:
    """To the router: close the tenant's endpoints; what is left of its requests gets a typed error."""

    tenant: str


@dataclass(frozen=True, slots=True)
class GateSet:
    """To the router: take new requests of the tenant, or refuse them as draining and announce when it is empty."""

    tenant: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class AvailabilitySet:
    """To the router: whether workers of the tenant can be expected; if not, its requests fail with `reason`."""

    tenant: str
    is_available: bool
    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class WorkerAdmitted:
    """To the router: the worker of this life, at this pid, may be given work once it has attached."""

    tenant: str
    replica: int
    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerClosed:
    """To the router: nothing new for this worker; announce when it is empty."""

    tenant: str
    replica: int
    generation: int


@dataclass(frozen=True, slots=True)
class WorkerRevoked:
    """To the router: this worker's leases are void; replay them."""

    tenant: str
    replica: int
    generation: int
    cause: str
    message: str


@dataclass(frozen=True, slots=True)
class AskUnfinished:
    """To the router: which requests of the tenant have no answer yet?"""

    tenant: str


@dataclass(frozen=True, slots=True)
class PoisonReleased:
    """To the router: forget which inputs of the tenant ended workers."""

    tenant: str


ChildMessage = (
    Hello
    | WorkerReady
    | RouterReady
    | WorkerBeat
    | FaultReport
    | RouterBeat
    | RouterStats
    | TenantIsEmpty
    | WorkerIsEmpty
    | Unfinished
)
SupervisorMessage = (
    Stop
    | TenantConfigured
    | TenantForgotten
    | GateSet
    | AvailabilitySet
    | WorkerAdmitted
    | WorkerClosed
    | WorkerRevoked
    | AskUnfinished
    | PoisonReleased
)
