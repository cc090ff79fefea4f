"""The supervisor's channel to each child: one SOCK_SEQPACKET socketpair, one msgpack message per packet.

Messages are frozen dataclasses, written as `[tag, field...]` with the name of the class as tag. `encode` and
`decode_message` cover them, `encode_settings` and `decode_settings` the settings of `trtd.wire.settings`. Decoding is
strict (unknown tags, missing or extra fields and wrong types raise `Malformed`), because a child runs code that came
with a model.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from msgpack import packb

from trtd.core.cuda_faults import MAX_TEXTS
from trtd.core.faults import Fault
from trtd.errors import Malformed, TooLarge
from trtd.wire import headers, records
from trtd.wire.headers import one_line
from trtd.wire.messages import ModelDescription
from trtd.wire.settings import DEFAULT_MAX_ANSWER_BYTES, RouterSettings, TenantEndpoint, Trial, WorkerSettings
from trtd.wire.tensorrt import DeviceReport

MAX_PACKET_BYTES = 128 * 1024
MAX_SETTINGS_BYTES = 16 * 1024 * 1024
MAX_BARRED_TOLD = 32
"""Barred clients in one tenant's numbers; whoever looks wants to know the worst."""

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
class TrialBegun:
    """A worker is about to run a model on inputs that nobody sent. Should it die of that, its successor is told.

    Attributes:
        generation: whose.
        model: name and version, for people.
        key: see `trtd.wire.settings.Trial`.
    """

    generation: int
    model: str
    key: str


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """It has survived, and this came of it."""

    generation: int
    trial: Trial


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
        device: device memory, None for a runtime without a device.
        is_resting: whether it has had nothing to do for a while, so that the next life sign comes late: when there is
            something to do, or it is asked, or after `idle_beat_every_s`.
    """

    generation: int
    progress: int
    in_flight: int
    rss_bytes: int
    peak_rss_bytes: int
    device: DeviceReport | None = None
    is_resting: bool = False


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
        undeliverable: answers whose client was gone or did not read; they are counted above as well.
        arena_bytes: shared memory of its clients, withdrawn arenas that requests still name included.
        arena_count: how many arenas these are.
        connections: of clients.
        connections_refused: connections of them that were sent away.
        unreachable: why nobody can connect at one of its addresses; empty while everybody can.
        convicted: inputs that were convicted of ending workers.
        poisons: inputs that are remembered as such, or as suspected.
        barred: clients of which nothing is taken for now: name, for how many seconds more, deaths that it caused. The
            longest first, at most `MAX_BARRED_TOLD`.
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
    undeliverable: int = 0
    arena_bytes: int = 0
    arena_count: int = 0
    connections: int = 0
    connections_refused: int = 0
    unreachable: str = ""
    convicted: int = 0
    poisons: int = 0
    barred: tuple[tuple[str, float, int], ...] = ()


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
    """The tenant's gate is closed and its last answer has left. `epoch` is that of the GateSet which closed it."""

    tenant: str
    epoch: int


@dataclass(frozen=True, slots=True)
class WorkerIsEmpty:
    """The closed worker holds no lease."""

    tenant: str
    replica: int
    generation: int


@dataclass(frozen=True, slots=True)
class WorkerMisbehaved:
    """The worker sent a message that the router cannot read; it is given nothing more, and nothing of it is heard."""

    tenant: str
    replica: int
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class ClientBlamed:
    """A client's input, or all that it sends, has ended these lives of the tenant's workers: the tenant pays for none.

    Attributes:
        tenant: whose workers.
        owner: the client, as the router names it.
        model: that was asked.
        deaths: replica and generation of each life; one may be told again.
        barred_s: for how long nothing more is taken of the client; 0 where one input was convicted, and no more.
    """

    tenant: str
    owner: str
    model: str
    deaths: tuple[tuple[int, int], ...]
    barred_s: float


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
class MakeFault:
    """To a worker: make a real fault in your process; refused unless the settings allow it."""

    fault: str


@dataclass(frozen=True, slots=True)
class AskBeat:
    """To a worker: give a life sign now."""


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
    """To the router: take new requests of the tenant, or refuse them as draining and announce when it is empty.

    `epoch` grows when the gate is moved and comes back in TenantIsEmpty, so that the end of an earlier drain is not
    mistaken for the end of this one.
    """

    tenant: str
    is_open: bool
    epoch: int


@dataclass(frozen=True, slots=True)
class AvailabilitySet:
    """To the router: whether workers of the tenant can be expected; if not, its requests fail with `reason`."""

    tenant: str
    is_available: bool
    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class WorkerAdmitted:
    """To the router: the worker of this life, at this pid, may be given work once it has attached.

    `max_answer_bytes` is what this very life was told of its answers; a reload may have changed it since.
    """

    tenant: str
    replica: int
    generation: int
    pid: int
    max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES


@dataclass(frozen=True, slots=True)
class WorkerSetAside:
    """The worker of this life is stopped by a signal: what it holds goes to others, until it connects again."""

    tenant: str
    replica: int
    generation: int


@dataclass(frozen=True, slots=True)
class WorkerClosed:
    """To the router: nothing new for this worker; announce when it is empty."""

    tenant: str
    replica: int
    generation: int


@dataclass(frozen=True, slots=True)
class WorkerRevoked:
    """To the router: this worker's leases are void; replay them. The fault says what that means for the requests."""

    tenant: str
    replica: int
    generation: int
    fault: Fault


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
    | TrialBegun
    | TrialEnded
    | RouterReady
    | WorkerBeat
    | FaultReport
    | RouterBeat
    | RouterStats
    | TenantIsEmpty
    | WorkerIsEmpty
    | WorkerMisbehaved
    | ClientBlamed
    | Unfinished
)
SupervisorMessage = (
    Stop
    | MakeFault
    | AskBeat
    | TenantConfigured
    | TenantForgotten
    | GateSet
    | AvailabilitySet
    | WorkerAdmitted
    | WorkerSetAside
    | WorkerClosed
    | WorkerRevoked
    | AskUnfinished
    | PoisonReleased
)

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (*typing.get_args(ChildMessage), *typing.get_args(SupervisorMessage))
}


def in_lines(fault: Fault) -> Fault:
    """A fault made fit for packets, logs and terminals: its message and its few texts are one bounded line each."""
    texts = tuple(one_line(text) for text in fault.texts[:MAX_TEXTS])
    return dataclasses.replace(fault, message=one_line(fault.message), texts=texts)


Settings = TypeVar("Settings", WorkerSettings, RouterSettings)


def encode(message: ChildMessage | SupervisorMessage) -> bytes:
    """The packet of a message. Text that is not valid Unicode (a file name, say) is written with escapes.

    Raises:
        TooLarge: the packet would break `MAX_PACKET_BYTES`, or one of its arrays `records.MAX_ITEMS`.
        ValueError: a float is not finite.
    """
    packet: bytes = packb([type(message).__name__, *records.to_plain(message)], unicode_errors="backslashreplace")
    if len(packet) > MAX_PACKET_BYTES:
        raise TooLarge(f"{type(message).__name__} needs {len(packet)} bytes, the most is {MAX_PACKET_BYTES}")
    return packet


def decode_message(packet: bytes | memoryview) -> ChildMessage | SupervisorMessage:
    """The message in a packet.

    Raises:
        Malformed: the packet is no message.
    """
    values = headers.unpack(packet, "the packet", MAX_PACKET_BYTES, records.MAX_ITEMS)
    if type(values) is not tuple or not values:
        raise Malformed(f"the packet: expected an array [tag, field...], got {headers.type_name(values)}")
    kind = _KINDS.get(values[0]) if type(values[0]) is str else None
    if kind is None:
        raise Malformed(f"the packet: {headers.show(values[0])} is no message")
    return records.from_plain(kind, values[1:])  # type: ignore[no-any-return]  # an instance of `kind`


def encode_settings(settings: WorkerSettings | RouterSettings) -> bytes:
    """The settings of a child, for its memfd.

    Raises:
        TooLarge: it has more models than one array may have entries.
    """
    return packb([type(settings).__name__, *records.to_plain(settings)])  # type: ignore[no-any-return]  # msgpack has no types


def decode_settings(data: bytes | memoryview, kind: type[Settings]) -> Settings:
    """The settings of a child.

    Raises:
        Malformed: they are not of this kind.
    """
    values = headers.unpack(data, "the settings", MAX_SETTINGS_BYTES, records.MAX_ITEMS)
    if type(values) is not tuple or not values or values[0] != kind.__name__:
        raise Malformed(f"the settings: expected an array that starts with {kind.__name__}")
    return records.from_plain(kind, values[1:])  # type: ignore[no-any-return]  # an instance of `kind`
