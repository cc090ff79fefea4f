"""What each child is told, and what the fleet needs to know, derived from the configuration.

Pure but for the functions that come in as arguments: who looks up accounts, who looks at model files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from trtd.config.accounts import EVERYONE, SYSTEM, Accounts
from trtd.config.model import Config, Health, LogFormat, Restart, Tenant
from trtd.config.origins import invalid_config
from trtd.core.dispatch import TenantLimits
from trtd.core.fleet import Replacement, TenantSpec
from trtd.core.ids import TenantName
from trtd.core.lifecycle import Timeouts
from trtd.core.restarts import RestartPolicy
from trtd.supervisor.model_files import Look, identities
from trtd.supervisor.peers import Roles
from trtd.wire import addresses
from trtd.wire.onnxruntime import OnnxRuntimeSettings
from trtd.wire.settings import (
    CurveClient,
    Listener,
    ModelSettings,
    ProbeSettings,
    RouterSettings,
    TenantEndpoint,
    Trial,
    WorkerSettings,
)
from trtd.wire.tensorrt import TensorRTSettings


def log_format(config: Config, *, is_terminal: bool) -> str:
    """`json` or `console`, as the configuration or else stderr decides."""
    if config.log.format is LogFormat.AUTO:
        return str(LogFormat.CONSOLE if is_terminal else LogFormat.JSON)
    return str(config.log.format)


def worker_settings(
    config: Config, tenant: str, replica: int, generation: int, log_format: str, trials: tuple[Trial, ...] = ()
) -> WorkerSettings:
    """What one life of a worker is told."""
    table = config.tenants[tenant]
    return WorkerSettings(
        tenant=tenant,
        replica=replica,
        generation=generation,
        runtime=table.runtime,
        models=_models(table),
        slots=table.slots,
        threads=table.threads,
        router_path=addresses.workers_path(config.daemon.runtime_dir),
        beat_every_s=config.daemon.beat_every_s,
        idle_beat_every_s=config.daemon.idle_beat_every_s,
        memory_limit_bytes=table.memory.limit_bytes,
        log_format=log_format,
        log_level=config.log.level,
        tensorrt=_tensorrt(table),
        onnxruntime=_onnxruntime(table),
        allow_faults=table.debug.allow_faults,
        busy_poll_s=config.daemon.busy_poll_s,
        trials=trials,
        max_answer_bytes=table.queue.max_answer_bytes,
    )


def router_settings(
    config: Config,
    generation: int,
    log_format: str,
    listeners: tuple[Listener, ...] = (),
    flight_fd: int = -1,
) -> RouterSettings:
    """What one life of the router is told at its start."""
    return RouterSettings(
        generation=generation,
        workers_path=addresses.workers_path(config.daemon.runtime_dir),
        beat_every_s=config.daemon.beat_every_s,
        memory_limit_bytes=config.router.memory_limit_bytes,
        curve_secret_key_file=config.router.curve_secret_key_file or None,
        socket_mode=int(config.router.socket_mode, 8),
        log_format=log_format,
        log_level=config.log.level,
        listeners=listeners,
        busy_poll_s=config.daemon.busy_poll_s,
        flight_fd=flight_fd,
    )


def tenant_endpoint(config: Config, tenant: str, accounts: Accounts = SYSTEM) -> TenantEndpoint:
    """What the router is told of a tenant.

    Raises:
        trtd.errors.InvalidConfig: a user or group that may send does not exist on this host.
    """
    table = config.tenants[tenant]
    users = [user for user in table.allow_users if user != EVERYONE]
    uids, unknown_users = accounts.uids(("tenants", tenant, "allow_users"), users)
    gids, unknown_groups = accounts.gids(("tenants", tenant, "allow_groups"), table.allow_groups)
    if unknown_users or unknown_groups:
        raise invalid_config([*unknown_users, *unknown_groups], {})
    clients = table.tcp.clients if table.tcp else {}
    return TenantEndpoint(
        tenant=tenant,
        limits=_limits(table),
        address=addresses.tenant_address(config.daemon.runtime_dir, tenant),
        allow_uids=uids,
        allow_gids=gids,
        tcp_address=f"tcp://{table.tcp.listen}" if table.tcp else None,
        curve_clients=tuple(CurveClient(name, key) for name, key in clients.items()),
        max_request_bytes=table.queue.max_request_bytes,
        allow_everyone=EVERYONE in table.allow_users,
        arenas_path=addresses.arenas_path(config.daemon.runtime_dir, tenant),
        max_arena_bytes=table.max_arena_bytes,
    )


def tenant_specs(config: Config, look: Look = identities, accounts: Accounts = SYSTEM) -> tuple[TenantSpec, ...]:
    """What the fleet needs to know of every tenant.

    Raises:
        trtd.errors.InvalidConfig: as for `tenant_endpoint`.
    """
    return tuple(
        TenantSpec(
            name=TenantName(name),
            replicas=table.replicas,
            timeouts=timeouts(table.health, config.daemon.idle_beat_every_s),
            restarts=restart_policy(table.restart),
            worker_digest=_worker_digest(config, name, look),
            router_digest=_digest(asdict(tenant_endpoint(config, name, accounts))),
            replacement=Replacement(table.replace),
        )
        for name, table in config.tenants.items()
    )


def operator_roles(config: Config, own_uid: int, accounts: Accounts = SYSTEM) -> Roles:
    """Who may use the operators' socket.

    Raises:
        trtd.errors.InvalidConfig: a user or group does not exist on this host.
    """
    operators = config.operators
    operator_uids, problems = accounts.uids(("operators", "operator_users"), operators.operator_users)
    operator_gids, more = accounts.gids(("operators", "operator_groups"), operators.operator_groups)
    viewer_uids, still_more = accounts.uids(("operators", "viewer_users"), operators.viewer_users)
    viewer_gids, last = accounts.gids(("operators", "viewer_groups"), operators.viewer_groups)
    problems = [*problems, *more, *still_more, *last]
    if problems:
        raise invalid_config(problems, {})
    return Roles(
        own_uid, frozenset(operator_uids), frozenset(operator_gids), frozenset(viewer_uids), frozenset(viewer_gids)
    )


def timeouts(health: Health, idle_beat_s: float = 0.0) -> Timeouts:
    """Patience with a child, which gives a life sign so often while it has nothing to do."""
    return Timeouts(**health.model_dump(), idle_beat_s=idle_beat_s)


def restart_policy(restart: Restart) -> RestartPolicy:
    """When a dead child is started again."""
    return RestartPolicy(**restart.model_dump())


def _models(tenant: Tenant) -> tuple[ModelSettings, ...]:
    return tuple(
        ModelSettings(
            name=model.name or table,
            version=model.version,
            path=model.path,
            max_batch=model.max_batch,
            max_delay_s=model.max_delay_s,
            probe=ProbeSettings(**model.probe.model_dump()) if model.probe else None,
            batching=model.batching,
            is_warmed_up=model.warm_up != "off",
            warm_up_inputs=model.warm_up_inputs,
        )
        for table, model in tenant.models.items()
    )


def _onnxruntime(tenant: Tenant) -> OnnxRuntimeSettings:
    values = tenant.onnxruntime.model_dump()
    options = values.pop("provider_options")
    return OnnxRuntimeSettings(
        session_entries=tuple(values.pop("session_entries").items()),
        provider_options=tuple((name, tuple(of.items())) for name, of in options.items()),
        **values,
    )


def _tensorrt(tenant: Tenant) -> TensorRTSettings:
    values = tenant.tensorrt.model_dump()
    return TensorRTSettings(is_spinning=values.pop("spin"), is_lazy=values.pop("lazy_loading"), **values)


def _limits(tenant: Tenant) -> TenantLimits:
    queue = tenant.queue
    return TenantLimits(
        weight=tenant.weight,
        max_requests=queue.max_requests,
        max_bytes=queue.max_bytes,
        default_timeout_s=queue.default_timeout_s,
        max_timeout_s=queue.max_timeout_s,
        max_attempts=queue.max_attempts,
        max_outstanding=queue.max_outstanding,
        poison_s=queue.poison_s,
        slots=tenant.slots,
    )


def _worker_digest(config: Config, tenant: str, look: Look) -> str:
    """Of all that a worker is told, and of the files it reads, so that a replaced file replaces the worker."""
    settings = worker_settings(config, tenant, replica=0, generation=0, log_format="")
    return _digest([asdict(settings), look(settings)])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
