"""The configuration as frozen pydantic models. Every key has its unit, its default and its meaning here and nowhere else.

Reading files, environment and flags is in `trtd.config.load`. A key that is unknown is an error; a version that is unknown
is refused.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

CONFIG_VERSION = 1

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""Of a tenant or model: lower case, digits, `-` and `_`; it becomes part of a socket's path and of metric labels."""

Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
SecondsOrZero = Annotated[float, Field(ge=0, le=86_400)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LogFormat(StrEnum):
    """`auto` is `console` on a terminal and `json` otherwise."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class Log(_Section):
    """What is logged and how."""

    format: LogFormat = Field(LogFormat.AUTO, strict=False, description="auto, console or json")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is written")


class Daemon(_Section):
    """The daemon as a whole."""

    runtime_dir: str = Field(
        "", description="directory of all sockets; empty: /run/trtd for root, else $XDG_RUNTIME_DIR/trtd"
    )
    drain_timeout_s: Seconds = Field(30.0, description="patience of SIGTERM with accepted requests")
    beat_every_s: Annotated[float, Field(ge=0.01, le=10)] = Field(
        0.1, description="interval of the children's life signs"
    )


class Operators(_Section):
    """Who may use the operators' socket. Root and the daemon's own user may do everything."""

    operator_users: tuple[str, ...] = Field(
        (), strict=False, description="users who may drain, resume, restart, reload"
    )
    operator_groups: tuple[str, ...] = Field((), strict=False, description="groups who may do the same")
    viewer_users: tuple[str, ...] = Field((), strict=False, description="users who may see the status")
    viewer_groups: tuple[str, ...] = Field((), strict=False, description="groups who may do the same")


class Router(_Section):
    """The process in front of the workers."""

    memory_limit_bytes: Annotated[int, Field(ge=0)] = Field(
        2 * 1024**3, description="resident memory above which it is replaced; 0: no limit"
    )
    socket_mode: Annotated[str, StringConstraints(pattern=r"^0?[0-7]{3}$")] = Field(
        "0666", description="permission bits of endpoint sockets; the kernel-checked peer decides in any case"
    )
    curve_secret_key_file: str = Field("", description="file with the Z85 secret key; needed by tcp endpoints")


class Metrics(_Section):
    """The Prometheus endpoint."""

    listen: str = Field("", description="empty: off; 127.0.0.1:PORT, [::1]:PORT or unix:/path")


class Probe(_Section):
    """A known answer that a worker must give before it counts as ready."""

    path: str = Field(description=".npz file with arrays in.NAME and out.NAME")
    absolute: Annotated[float, Field(ge=0)] = Field(1e-4, description="largest absolute difference")
    relative: Annotated[float, Field(ge=0)] = Field(
        1e-3, description="largest difference relative to the expected value"
    )


class Model(_Section):
    """One model of a tenant."""

    path: str = Field(description="file of the model; relative paths start at the configuration file's directory")
    version: Version = Field("1", description="what clients may ask for; several tables may share `name`")
    name: Name | None = Field(None, description="what clients ask for; the table's own name by default")
    max_batch: Annotated[int, Field(ge=1, le=65_536)] = Field(32, description="most items run together")
    max_delay_s: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0, description="longest wait of a request for others of its batch; 0 takes what is there"
    )
    probe: Probe | None = Field(None, description="known answer checked before READY")


class Queue(_Section):
    """Bounds on a tenant's accepted and unanswered requests."""

    max_requests: Annotated[int, Field(ge=1, le=1_000_000)] = Field(1024, description="most requests")
    max_bytes: Annotated[int, Field(ge=4096)] = Field(256 * 1024**2, description="most payload bytes")
    max_request_bytes: Annotated[int, Field(ge=4096)] = Field(
        64 * 1024**2, description="most payload bytes of one request"
    )
    max_outstanding: Annotated[int, Field(ge=1, le=4096)] = Field(
        64, description="most requests at one worker at a time"
    )
    default_timeout_s: Seconds = Field(30.0, description="deadline of a request that names none")
    max_timeout_s: Seconds = Field(600.0, description="longest deadline that a request may name")
    max_attempts: Annotated[int, Field(ge=1, le=100)] = Field(5, description="workers one request may be given to")
    poison_s: SecondsOrZero = Field(600.0, description="how long an input that ended workers is refused")


class Restart(_Section):
    """When dead workers are started again."""

    base_s: Seconds = Field(0.1, description="delay before the second restart; the first is immediate")
    cap_s: Seconds = Field(30.0, description="longest delay")
    jitter: Annotated[float, Field(ge=0, lt=1)] = Field(0.2, description="random part of the delay, up and down")
    healthy_after_s: Seconds = Field(60.0, description="a worker ready for so long starts anew")
    budget: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        10, description="deaths in a window that are still restarted"
    )
    window_s: Seconds = Field(60.0, description="length of the window")
    probe_after_s: SecondsOrZero = Field(
        60.0, description="a quarantined worker is tried again after so long; 0: never"
    )


class Health(_Section):
    """Patience with a worker."""

    hello_s: Seconds = Field(20.0, description="from spawn to the first word")
    warmup_s: Seconds = Field(120.0, description="from the first word to ready")
    beat_s: Seconds = Field(1.0, description="longest silence")
    progress_s: Seconds = Field(30.0, description="longest time without progress while a batch runs")
    drain_s: Seconds = Field(30.0, description="for a worker that is replaced: until its last answer")
    stop_s: Seconds = Field(5.0, description="from the request to stop to SIGKILL")
    reap_s: Seconds = Field(10.0, description="from SIGKILL until it counts as stuck")


class Memory(_Section):
    """Host memory of each worker of a tenant."""

    limit_bytes: Annotated[int, Field(ge=0)] = Field(0, description="0: no limit")


class Tcp(_Section):
    """An endpoint for other hosts. Always CURVE; the key decides who may use the tenant."""

    listen: Annotated[str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[0-9.]+|\*):[0-9]{1,5}$")] = Field(
        description="ADDRESS:PORT"
    )
    clients: dict[str, Annotated[str, StringConstraints(min_length=40, max_length=40)]] = Field(
        default_factory=dict, description="name = CURVE public key (Z85, 40 characters)"
    )


class Tenant(_Section):
    """One tenant: its models, its limits, its workers."""

    runtime: Literal["onnxruntime", "scripted"] = Field(
        "onnxruntime", description="what runs the models; scripted is for tests"
    )
    replicas: Annotated[int, Field(ge=1, le=64)] = Field(1, description="worker processes")
    slots: Annotated[int, Field(ge=1, le=64)] = Field(1, description="batches run at a time in one worker")
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="threads of the runtime inside one run")
    weight: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="share of the router, relative to other tenants"
    )
    allow_users: tuple[str, ...] = Field(
        (),
        strict=False,
        description="users (names or uids) that may send; `*` for all; the daemon's own always may",
    )
    allow_groups: tuple[str, ...] = Field((), strict=False, description="groups (names or gids) whose members may send")
    models: dict[Name, Model] = Field(min_length=1, description="the models")
    queue: Queue = Field(default_factory=Queue)
    restart: Restart = Field(default_factory=Restart)
    health: Health = Field(default_factory=Health)
    memory: Memory = Field(default_factory=Memory)
    tcp: Tcp | None = Field(None, description="endpoint for other hosts")


class Config(_Section):
    """The whole configuration."""

    version: Literal[1] = Field(CONFIG_VERSION, description="of this format")
    log: Log = Field(default_factory=Log)
    daemon: Daemon = Field(default_factory=Daemon)
    operators: Operators = Field(default_factory=Operators)
    router: Router = Field(default_factory=Router)
    metrics: Metrics = Field(default_factory=Metrics)
    tenants: dict[Name, Tenant] = Field(default_factory=dict, description="by name")
