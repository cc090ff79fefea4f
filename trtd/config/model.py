"""The configuration as frozen pydantic models: every key has its unit, default and meaning here and nowhere else.

A key's unit is the end of its name: `_s` is seconds, `_bytes` is bytes. From these models come the full sample
(`trtd.config.sample`), the texts of problems (`trtd.config.validation`) and what a reload can apply
(`trtd.config.reload`). Reading files, environment and flags is in `trtd.config.load`; rules that concern several keys
are in `trtd.config.checks`. An unknown key is an error; an unknown version is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

CONFIG_VERSION: Final = 1


class Reload(Enum):
    """What it takes until a changed value counts, as the sample says it."""

    LIVE = "a reload applies it"
    WORKERS = "a reload replaces the tenant's workers one after the other"
    DAEMON = "needs a restart of the daemon"


@dataclass(frozen=True, slots=True)
class Expect:
    """What a string has to look like, in words for people."""

    text: str


@dataclass(frozen=True, slots=True)
class FileName:
    """Marks a string as a path: a relative one is resolved when its layer is read."""


Name = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$"),
    Expect("1 to 63 of a-z, 0-9, - and _, beginning with a letter or digit"),
]
"""Of a tenant or a client: lower case, digits, `-` and `_`; it becomes part of a socket's path and of metric labels."""

ModelName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"),
    Expect("1 to 63 letters, digits, ., - and _, beginning with a letter or digit"),
]
"""Of a model: as files and hubs call it. It stands in messages and metric labels, and never in a path."""

Version = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"),
    Expect("a string of 1 to 63 letters, digits, ., - and _, beginning with a letter or digit"),
]
Path = Annotated[str, StringConstraints(pattern=r"^[^\x00]+$"), Expect("a path"), FileName()]
PathOrEmpty = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$"), Expect("a path or an empty string"), FileName()]
Paths = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^[^\x00]+$"), Expect("a path")], ...],
    FileName(),
    Field(strict=False),
    Expect('an array of paths, such as ["/opt/libone.so"]'),
]
Provider = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9]{1,64}ExecutionProvider$"),
    Expect('the name of an execution provider, such as "CUDAExecutionProvider"'),
]
Providers = Annotated[
    tuple[Provider, ...],
    Field(strict=False),
    Expect('an array of execution providers, such as ["CUDAExecutionProvider", "CPUExecutionProvider"]'),
]
OptionName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_.]{1,128}$"), Expect("1 to 128 letters, digits, _ and .")
]
SessionEntry = Annotated[
    str,
    StringConstraints(pattern=r"^(session|optimization|ep|mlas|memory)\.[A-Za-z0-9_.]{1,128}$"),
    Expect("a name in quotes that begins with session., optimization., ep., mlas. or memory."),
]
Accounts = Annotated[tuple[Annotated[str, StringConstraints(min_length=1)], ...], Field(strict=False)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
SecondsOrZero = Annotated[float, Field(ge=0, le=86_400)]
BytesOrZero = Annotated[int, Field(ge=0, le=2**50)]
Bytes = Annotated[int, Field(ge=4096, le=2**50)]
Difference = Annotated[float, Field(ge=0, le=1_000_000)]
CurveKey = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9A-Za-z.:+=^!/*?&<>()\[\]{}@%$#-]{40}$"),
    Expect("a CURVE public key of 40 characters (Z85)"),
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    reload: ClassVar[Reload] = Reload.DAEMON
    """Of every key of the section that is not marked otherwise."""


class LogFormat(StrEnum):
    """`auto` is `console` on a terminal and `json` otherwise."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class Log(_Section):
    """What is logged and how."""

    format: LogFormat = Field(
        LogFormat.AUTO, strict=False, description="form of the log lines; auto: console on a terminal, json elsewhere"
    )
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is written")


class Daemon(_Section):
    """The daemon as a whole."""

    runtime_dir: PathOrEmpty = Field(
        "",
        description="directory of all sockets;"
        " empty: /run/trtd for root, else $XDG_RUNTIME_DIR/trtd, else /tmp/trtd-UID",
    )
    drain_timeout_s: Seconds = Field(30.0, description="patience of SIGTERM with accepted requests")
    beat_every_s: Annotated[float, Field(ge=0.01, le=10)] = Field(
        0.1, description="interval of the children's life signs"
    )
    idle_beat_every_s: Annotated[float, Field(ge=0.01, le=60)] = Field(
        5.0, description="the same of a worker that has nothing to do; one that falls silent meanwhile is found so late"
    )
    max_starting: Annotated[int, Field(ge=0, le=4096)] = Field(
        0,
        description="workers that start at one time, so that those that serve get a processor meanwhile; as many again"
        " where they served before they died; 0: as many as there are processors",
    )
    busy_poll_s: Annotated[float, Field(ge=0, le=0.01)] = Field(
        0.001,
        description="how long router and workers look for what comes next before they sleep, where the last wait was"
        " shorter than that: faster, and busy processors; 0: never",
    )


class Operators(_Section):
    """Who may use the operators' socket, by name or number. Root and the daemon's own user may do everything."""

    reload: ClassVar[Reload] = Reload.LIVE

    operator_users: Accounts = Field((), description="users who may drain, resume, restart and reload")
    operator_groups: Accounts = Field((), description="groups whose members may do the same")
    viewer_users: Accounts = Field((), description="users who may see the status")
    viewer_groups: Accounts = Field((), description="groups whose members may do the same")


class Restart(_Section):
    """When a dead process is started again. The first restart after a healthy time is immediate."""

    reload: ClassVar[Reload] = Reload.LIVE

    base_s: Seconds = Field(0.1, description="delay before the second restart; it doubles from there")
    cap_s: Seconds = Field(30.0, description="longest delay")
    jitter: Annotated[float, Field(ge=0, lt=1)] = Field(0.2, description="random part of the delay, up and down")
    healthy_after_s: Seconds = Field(60.0, description="a process ready for so long counts as sound again")
    budget: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        10, description="deaths in a window that are still restarted; one more is quarantine"
    )
    window_s: Seconds = Field(60.0, description="length of the window")
    probe_after_s: SecondsOrZero = Field(60.0, description="quarantine ends with a trial after so long; 0: never")


class RouterRestart(Restart):
    """When a dead router is started again.

    It holds no model and every tenant waits for it: sooner than a worker, and for ever. One that dies at each start
    uses the budget up within the window, and then drains no longer wait for it.
    """

    reload: ClassVar[Reload] = Reload.DAEMON

    base_s: Seconds = Field(0.02, description="delay before the second restart; it doubles from there")
    cap_s: Seconds = Field(0.25, description="longest delay")
    healthy_after_s: Seconds = Field(5.0, description="a process ready for so long counts as sound again")
    budget: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        120, description="deaths in a window that are still restarted; one more is quarantine"
    )
    probe_after_s: SecondsOrZero = Field(5.0, description="quarantine ends with a trial after so long; 0: never")


class Health(_Section):
    """Patience with a process."""

    reload: ClassVar[Reload] = Reload.LIVE

    hello_s: Seconds = Field(20.0, description="from spawn to the first word")
    warmup_s: Seconds = Field(120.0, description="from the first word to ready; loading models is part of it")
    beat_s: Seconds = Field(1.0, description="longest silence")
    progress_s: Seconds = Field(30.0, description="longest time without progress while work is in flight")
    stopped_s: SecondsOrZero = Field(
        60.0, description="how long it may be stopped by a signal or a debugger before it is replaced; 0: for ever"
    )
    drain_s: Seconds = Field(30.0, description="for one that is replaced: until its last answer")
    stop_s: Seconds = Field(5.0, description="from the request to stop to SIGKILL")
    reap_s: Seconds = Field(10.0, description="from SIGKILL until it counts as stuck")


class RouterHealth(Health):
    """Patience with the router."""

    reload: ClassVar[Reload] = Reload.DAEMON

    warmup_s: Seconds = Field(20.0, description="from the first word to ready; opening the sockets is part of it")
    beat_s: Seconds = Field(2.0, description="longest silence")
    drain_s: Seconds = Field(5.0, description="for one that is replaced: until its last answer")


class Router(_Section):
    """The process in front of the workers."""

    memory_limit_bytes: BytesOrZero = Field(
        2 * 1024**3, description="resident memory above which it is replaced; 0: no limit"
    )
    socket_mode: Annotated[
        str, StringConstraints(pattern=r"^0?[0-7]{3}$"), Expect('permission bits as an octal string, such as "0660"')
    ] = Field("0666", description="mode of the endpoint sockets; the kernel-checked peer decides in any case")
    curve_secret_key_file: PathOrEmpty = Field(
        "", description="file with the router's Z85 secret key; tcp endpoints need it"
    )
    health: RouterHealth = Field(default_factory=RouterHealth)
    restart: RouterRestart = Field(default_factory=RouterRestart)


class DaemonHealth(_Section):
    """Where probes and Prometheus ask, and when the daemon itself counts as failed."""

    listen: Annotated[
        str,
        StringConstraints(pattern=r"^(|127\.0\.0\.1:[0-9]{1,5}|\[::1\]:[0-9]{1,5}|unix:/[^\x00]+)$"),
        Expect('"" for none, "127.0.0.1:PORT", "[::1]:PORT" or "unix:/PATH" (loopback and unix sockets only)'),
    ] = Field("", description="where HTTP answers /live, /ready, /ready/TENANT and /metrics; empty: off")
    give_up_after_s: SecondsOrZero = Field(
        60.0,
        description="a router that cannot be kept up for so long ends the daemon (exit code 69), so that its host"
        " starts it anew; 0: never",
    )
    give_up_without_tenants: bool = Field(
        default=False, description="whether the same goes when no required tenant can serve for so long"
    )


class Probe(_Section):
    """A known answer that a worker must give before it counts as ready."""

    reload: ClassVar[Reload] = Reload.WORKERS

    path: Path = Field(
        description=".npz file with arrays in.NAME and out.NAME", examples=["/srv/models/resnet.probe.npz"]
    )
    absolute: Difference = Field(1e-4, description="largest absolute difference")
    relative: Difference = Field(1e-3, description="largest difference relative to the expected value")


class Model(_Section):
    """One model of a tenant. Several tables may share one `name` with different versions."""

    reload: ClassVar[Reload] = Reload.WORKERS

    path: Path = Field(
        description="file of the model; a relative path starts at the directory of the file it stands in",
        examples=["/srv/models/resnet.onnx"],
    )
    version: Version = Field("1", description="what clients may ask for; without it they get the last one listed")
    name: ModelName | None = Field(
        None, description="what clients ask for; by default the table's own name", examples=["resnet"]
    )
    max_batch: Annotated[int, Field(ge=1, le=65_536)] = Field(32, description="most items run together; 1: no batching")
    max_delay_s: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0, description="longest wait of a request for others of its batch; 0 takes what is there"
    )
    batching: Literal["proven", "always", "off"] = Field(
        "proven",
        description="whether requests run together: proven: once it was shown at warm-up that each gets the answer"
        " that it gets alone; always: without a look; off: never",
    )
    warm_up: Literal["auto", "off"] = Field(
        "auto",
        description="auto: before it is ready it runs on warm_up_inputs, or on inputs like those of the probe, or on"
        " made-up ones, which it may refuse; off: not at all, and then nothing is shown for batching",
    )
    warm_up_inputs: Paths = Field(
        (),
        description=".npz files, each with one request as arrays in.NAME, which the model has to take",
        examples=[("/srv/models/resnet.warm-up.npz",)],
    )
    probe: Probe | None = Field(None)


class Queue(_Section):
    """Bounds on a tenant's accepted and unanswered requests."""

    reload: ClassVar[Reload] = Reload.LIVE

    max_requests: Annotated[int, Field(ge=1, le=1_000_000)] = Field(1024, description="most requests")
    max_bytes: Bytes = Field(256 * 1024**2, description="most payload of all of them")
    max_request_bytes: Bytes = Field(64 * 1024**2, description="most payload of one request")
    max_answer_bytes: Annotated[Bytes, Reload.WORKERS] = Field(
        64 * 1024**2, description="most payload of one answer; outputs in the client's shared memory do not count"
    )
    max_outstanding: Annotated[int, Field(ge=1, le=4096)] = Field(
        64, description="most requests at one worker at a time"
    )
    default_timeout_s: Seconds = Field(30.0, description="deadline of a request that names none")
    max_timeout_s: Seconds = Field(600.0, description="longest deadline that a request may name")
    max_attempts: Annotated[int, Field(ge=1, le=100)] = Field(5, description="workers that one request may be given to")
    poison_s: SecondsOrZero = Field(600.0, description="how long an input that ended workers is refused")


class Memory(_Section):
    """Host memory of each worker of a tenant."""

    reload: ClassVar[Reload] = Reload.WORKERS

    limit_bytes: BytesOrZero = Field(0, description="resident memory above which a worker is replaced; 0: no limit")


class TensorRT(_Section):
    """For the flavours of TensorRT: where it is, its device, and the memory that it may take there."""

    reload: ClassVar[Reload] = Reload.WORKERS

    package_path: PathOrEmpty = Field(
        "", description="directory that holds the Python package; empty: the import path as it is"
    )
    library_path: PathOrEmpty = Field(
        "", description="directory of TensorRT's libraries; empty: where the system's loader looks"
    )
    lean_library: PathOrEmpty = Field("", description="lean library for the dispatch runtime; empty: none")
    plugin_libraries: Paths = Field(
        (), description="libraries with plugins that plans need; they run as code of the worker"
    )
    allow_host_code: bool = Field(
        default=False, description="whether code inside a plan (a lean runtime, plugins) may run on this host"
    )
    device: Annotated[int, Field(ge=0, le=1023)] = Field(0, description="which of the devices that the worker sees")
    soft_bytes: BytesOrZero = Field(
        0, description="device memory above which batches run one at a time and keep nothing for the next; 0: none"
    )
    hard_bytes: BytesOrZero = Field(
        0, description="device memory that allocations never pass; 0: derived from what the models need, with a margin"
    )
    overhead_bytes: BytesOrZero = Field(
        600 * 1024**2, description="what the driver is expected to take beside that, context included, for admission"
    )
    unaccounted_bytes: BytesOrZero = Field(
        0, description="device memory beside our own pool above which on_unaccounted applies; 0: never"
    )
    on_unaccounted: Literal["warn", "stop_admitting", "restart"] = Field(
        "warn", description="what is done then: a log line, requests refused until it falls, or a new worker"
    )
    staging_bytes: BytesOrZero = Field(1024**3, description="pinned host memory of one worker; 0: no bound")
    spin: bool = Field(
        default=False, description="whether threads that wait burn their processor all the time, not only for a moment"
    )
    max_graphs: Annotated[int, Field(ge=0, le=4096)] = Field(
        32, description="CUDA graphs of one slot and model, one for each shape that comes again; 0: none"
    )
    lazy_loading: bool = Field(default=True, description="whether kernels are loaded when they are first used")
    streamed_weights_bytes: Annotated[int, Field(ge=-1, le=2**50)] = Field(
        -1, description="weights that stay on the device, for plans built for weight streaming; -1: all"
    )
    persistent_l2_bytes: BytesOrZero = Field(
        0, description="L2 cache that one slot may set apart; all slots together at most what the device can"
    )
    stream_priority: Annotated[int, Field(ge=-16, le=16)] = Field(
        0, description="priority of the slots' streams; lower numbers come first"
    )


class OnnxRuntime(_Section):
    """For ONNX Runtime: how a session runs, and on what."""

    reload: ClassVar[Reload] = Reload.WORKERS

    execution_mode: Literal["sequential", "parallel"] = Field(
        "sequential", description="whether operators that do not wait for each other run side by side"
    )
    inter_threads: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="threads that run operators side by side, where the mode is parallel; see also threads"
    )
    graph_optimization: Literal["off", "basic", "extended", "all"] = Field(
        "all", description="how far a model is rewritten when it is loaded"
    )
    memory_arena: bool = Field(
        default=True, description="whether memory on the CPU comes from an arena that keeps what it has had"
    )
    shrink_arena: bool = Field(
        default=False, description="whether that arena gives back after each run what it need not keep; slower"
    )
    memory_pattern: bool = Field(
        default=True, description="whether the memory of a run is planned from runs of the same shapes"
    )
    custom_op_libraries: Paths = Field(
        (), description="libraries with operators that models need; they run as code of the worker"
    )
    providers: Providers = Field(
        ("CPUExecutionProvider",),
        description="execution providers, the most wanted first; the installed package has to have them",
    )
    provider_options: dict[Provider, dict[OptionName, str]] = Field(
        default_factory=dict,
        description="options of these providers, as ONNX Runtime names them",
        examples=[{"CUDAExecutionProvider": {"device_id": "0"}}],
    )
    session_entries: dict[SessionEntry, str] = Field(
        default_factory=dict,
        description="further entries of the session's configuration, as ONNX Runtime names them; it ignores those"
        " that it does not know",
        examples=[{"session.intra_op.allow_spinning": "1"}],
    )


class Debug(_Section):
    """For drills, and for tests of what stands around the worker."""

    reload: ClassVar[Reload] = Reload.WORKERS

    allow_faults: bool = Field(default=False, description="whether an operator may have real faults made in the worker")


class Tcp(_Section):
    """An endpoint for other hosts. Always CURVE: the client's key decides who may use the tenant."""

    reload: ClassVar[Reload] = Reload.LIVE

    listen: Annotated[
        str,
        StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[0-9]{1,3}(\.[0-9]{1,3}){3}|\*):[0-9]{1,5}$"),
        Expect('"ADDRESS:PORT" with an IPv4 address, an IPv6 address in brackets, or *'),
    ] = Field(description="where it listens", examples=["192.0.2.1:5555"])
    clients: dict[Name, CurveKey] = Field(
        default_factory=dict,
        description="CURVE public keys that may use the tenant, by the name of their holder",
        examples=[{"laptop": "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"}],
    )


class Tenant(_Section):
    """One tenant: its models, its limits, its workers."""

    reload: ClassVar[Reload] = Reload.WORKERS

    runtime: Literal["onnxruntime", "tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx", "scripted"] = (
        Field("onnxruntime", description="what runs the models; scripted is for tests")
    )
    required: Annotated[bool, Reload.LIVE] = Field(
        default=True, description="whether the daemon counts as ready only while this tenant is"
    )
    replicas: Annotated[int, Field(ge=1, le=64), Reload.LIVE] = Field(1, description="worker processes")
    replace: Annotated[Literal["successor-first", "stop-first"], Reload.LIVE] = Field(
        "successor-first",
        description="how reload and restart replace a worker: the old one serves until its successor is ready, or,"
        " where memory does not allow two at a time, it stops first",
    )
    slots: Annotated[int, Field(ge=1, le=64)] = Field(1, description="batches run at a time in one worker")
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="threads of the runtime inside one run")
    weight: Annotated[int, Field(ge=1, le=1000), Reload.LIVE] = Field(
        1, description="share of the router, relative to other tenants"
    )
    allow_users: Annotated[Accounts, Reload.LIVE] = Field(
        (), description='users who may send, by name or number; "*" for all; root and the daemon\'s own always may'
    )
    allow_groups: Annotated[Accounts, Reload.LIVE] = Field(
        (), description="groups whose members may send, by name or number"
    )
    max_arena_bytes: Annotated[BytesOrZero, Reload.LIVE] = Field(
        1024**3, description="most shared memory of all its clients together, for tensors in place of copies; 0: none"
    )
    models: dict[ModelName, Model] = Field(min_length=1, description="the models, at least one")
    queue: Queue = Field(default_factory=Queue)
    restart: Restart = Field(default_factory=Restart)
    health: Health = Field(default_factory=Health)
    memory: Memory = Field(default_factory=Memory)
    onnxruntime: OnnxRuntime = Field(default_factory=OnnxRuntime)
    tensorrt: TensorRT = Field(default_factory=TensorRT)
    debug: Debug = Field(default_factory=Debug)
    tcp: Tcp | None = Field(None)


class Config(_Section):
    """The whole configuration."""

    version: Literal[1] = Field(CONFIG_VERSION, description="version of this format")
    log: Log = Field(default_factory=Log)
    daemon: Daemon = Field(default_factory=Daemon)
    operators: Operators = Field(default_factory=Operators)
    router: Router = Field(default_factory=Router)
    health: DaemonHealth = Field(default_factory=DaemonHealth)
    tenants: dict[Name, Tenant] = Field(default_factory=dict, description="the tenants, by name")
