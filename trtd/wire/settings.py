"""What a child is told at its start, as plain frozen values: the configuration as far as it concerns that child.

The supervisor derives them from the configuration (`trtd.supervisor.settings`) and hands them over as a sealed memfd;
the child reads them with `trtd.wire.control.decode_settings`. So a child needs neither pydantic nor the configuration
files, and starts fast.
"""

from __future__ import annotations

from dataclasses import dataclass

from trtd.core.requests import TenantLimits
from trtd.wire.onnxruntime import OnnxRuntimeSettings
from trtd.wire.tensorrt import TensorRTSettings

DEFAULT_MAX_ANSWER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """A known answer that a worker must give before it is READY.

    Attributes:
        path: an .npz file with arrays `in.NAME` and `out.NAME`.
        absolute: largest difference allowed, plus `relative` times the expected value.
        relative: see above.
    """

    path: str
    absolute: float
    relative: float


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One model of a tenant.

    Attributes:
        name: how clients ask for it.
        version: likewise; the newest version is the last one in configuration order.
        path: absolute path of the model file.
        max_batch: most items that are run together; 1 switches batching off.
        max_delay_s: longest time the first request of a batch waits for others; 0 takes what is there.
        probe: known answer, None to do with the warm-up alone.
        batching: `proven` (joined once it was shown that joined equals separate), `always` or `off`.
        is_warmed_up: whether it is run before it is READY, also on inputs that are made up.
        warm_up_inputs: .npz files with inputs for that, as arrays `in.NAME`.
    """

    name: str
    version: str
    path: str
    max_batch: int
    max_delay_s: float
    probe: ProbeSettings | None
    batching: str = "proven"
    is_warmed_up: bool = True
    warm_up_inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of running a model on inputs that nobody sent, so that a successor need not do it again.

    Attributes:
        key: digest of the model's file and of all that the outcome depends on.
        batching: see `trtd.wire.messages.ModelDescription`; empty where `is_harmful`.
        is_harmful: whether it ended the process, or kept it busy for too long.
    """

    key: str
    batching: str
    is_harmful: bool = False


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What one worker is told.

    Attributes:
        tenant: its tenant.
        replica: its place among the tenant's workers.
        generation: this life.
        runtime: `onnxruntime`, a flavour of TensorRT, or `scripted` in tests.
        models: what it serves.
        slots: batches run at the same time, each by a thread of its own.
        threads: threads that the runtime may use inside one run.
        router_path: the unix socket at which the router waits for workers.
        beat_every_s: interval of life signs.
        idle_beat_every_s: the same while it has nothing to do.
        memory_limit_bytes: RSS above which the worker reports a fault and leaves; 0 for none (a cgroup may limit it as
            well).
        log_format: `json` or `console`.
        log_level: `debug`, `info`, `warning` or `error`.
        tensorrt: what the flavours of TensorRT are told; None for their defaults.
        onnxruntime: what ONNX Runtime is told; None for its defaults.
        allow_faults: whether an operator may have faults made in the worker.
        busy_poll_s: how long it may look for the next request before it sleeps, see `trtd.core.polling`.
        trials: outcomes that workers of this tenant have told.
        max_answer_bytes: most bytes of one answer's outputs, those in the client's shared memory not counted.
    """

    tenant: str
    replica: int
    generation: int
    runtime: str
    models: tuple[ModelSettings, ...]
    slots: int
    threads: int
    router_path: str
    beat_every_s: float
    memory_limit_bytes: int
    log_format: str
    log_level: str
    idle_beat_every_s: float = 5.0
    tensorrt: TensorRTSettings | None = None
    onnxruntime: OnnxRuntimeSettings | None = None
    allow_faults: bool = False
    busy_poll_s: float = 0.0
    trials: tuple[Trial, ...] = ()
    max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES


@dataclass(frozen=True, slots=True)
class CurveClient:
    """A CURVE public key (Z85, 40 characters) that may use a tenant over tcp."""

    name: str
    public_key: str


@dataclass(frozen=True, slots=True)
class TenantEndpoint:
    """What the router is told of one tenant.

    Attributes:
        tenant: its name.
        limits: bounds of its queue, weight, attempts.
        address: ZeroMQ ipc address of its endpoint.
        allow_uids: users that may connect; the daemon's own user and root always may.
        allow_gids: groups whose members may connect.
        tcp_address: optional `tcp://` address; needs the router's CURVE secret key.
        curve_clients: keys that may use the tenant over tcp.
        max_request_bytes: most payload bytes of one request.
        allow_everyone: whether every local user may connect (`*` in the configuration); the two lists do not matter
            then.
        arenas_path: where its clients offer shared memory.
        max_arena_bytes: most bytes of shared memory of all its clients together; 0 takes none.
    """

    tenant: str
    limits: TenantLimits
    address: str
    allow_uids: tuple[int, ...]
    allow_gids: tuple[int, ...]
    tcp_address: str | None
    curve_clients: tuple[CurveClient, ...]
    max_request_bytes: int
    allow_everyone: bool = False
    arenas_path: str = ""
    max_arena_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket that the router inherits.

    Attributes:
        address: ZeroMQ address for which it stands.
        fd: its number in the router; the router works with copies of it.
    """

    address: str
    fd: int


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """What the router is told at its start; tenants follow as messages.

    Attributes:
        generation: this life of the router.
        workers_path: the unix socket at which it waits for workers.
        beat_every_s: interval of life signs.
        memory_limit_bytes: RSS above which it ends itself to be restarted; 0 for none.
        curve_secret_key_file: file with the Z85 secret key for tcp endpoints, None without tcp.
        socket_mode: permission bits of endpoint sockets.
        log_format: `json` or `console`.
        log_level: `debug`, `info`, `warning` or `error`.
        listeners: sockets that are open already; for any other address it opens its own.
        busy_poll_s: how long it may look for what comes next before it sleeps, see `trtd.core.polling`.
        flight_fd: of the page that outlives routers, see `trtd.core.flight`; -1 for none.
    """

    generation: int
    workers_path: str
    beat_every_s: float
    memory_limit_bytes: int
    curve_secret_key_file: str | None
    socket_mode: int
    log_format: str
    log_level: str
    listeners: tuple[Listener, ...] = ()
    busy_poll_s: float = 0.0
    flight_fd: int = -1
