"""Rules that concern several keys: one line for each that is broken.

All of it is pure and part of loading: a configuration that breaks a rule is refused as a whole. The files that it names
are not looked at, because one tenant's missing model must not keep the daemon from serving the others; `trtd config
check` does that (`trtd.cli.file_checks`).
"""

from __future__ import annotations

import ipaddress
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from trtd.config.model import Config, Tenant
from trtd.config.origins import Problem
from trtd.config.schema import KeyPath
from trtd.wire import addresses

MAX_SOCKET_PATH_BYTES = 107
"""The kernel's limit on the path of a unix socket (sun_path, without the final NUL)."""

MAX_TENANTS = 2000
"""Each is a process or more; some hundred have been tried on one host."""

RESERVED_TENANTS = frozenset({"operator"})
"""Names whose socket would be one of the daemon's own."""


def cross_problems(config: Config) -> list[Problem]:
    """Everything in the configuration that does not fit together."""
    problems = [*_health(config), *_socket_paths(config), *_tcp_addresses(config)]
    problems.extend(_restart(("router", "restart"), config.router.restart.base_s, config.router.restart.cap_s))
    problems.extend(_beat(("router", "health"), config.router.health.beat_s, config))
    for name, tenant in config.tenants.items():
        problems.extend(_tenant(("tenants", name), tenant, config))
    return problems


def tenants_problem(table: Mapping[str, Any]) -> Problem | None:
    """More tenants than any host has are found before each of them is looked at, which would take minutes."""
    tenants = table.get("tenants")
    if not isinstance(tenants, dict) or len(tenants) <= MAX_TENANTS:
        return None
    return Problem(("tenants",), f"{len(tenants)} tenants are configured, and a daemon has {MAX_TENANTS} at most")


def _tenant(path: KeyPath, tenant: Tenant, config: Config) -> Iterator[Problem]:
    queue = tenant.queue
    if path[-1] in RESERVED_TENANTS:
        yield Problem(path, "this name is reserved for the daemon's own socket")
    if queue.default_timeout_s > queue.max_timeout_s:
        yield Problem(
            (*path, "queue", "default_timeout_s"),
            f"must be at most queue.max_timeout_s ({queue.max_timeout_s}), not {queue.default_timeout_s}",
        )
    if queue.max_request_bytes > queue.max_bytes:
        yield Problem(
            (*path, "queue", "max_request_bytes"),
            f"must be at most queue.max_bytes ({queue.max_bytes}), not {queue.max_request_bytes}",
        )
    memory = tenant.tensorrt
    if memory.hard_bytes and memory.soft_bytes > memory.hard_bytes:
        yield Problem(
            (*path, "tensorrt", "soft_bytes"),
            f"must be at most tensorrt.hard_bytes ({memory.hard_bytes}), not {memory.soft_bytes}",
        )
    if not tenant.onnxruntime.providers:
        yield Problem((*path, "onnxruntime", "providers"), "must name at least one, such as CPUExecutionProvider")
    yield from _restart((*path, "restart"), tenant.restart.base_s, tenant.restart.cap_s)
    yield from _beat((*path, "health"), tenant.health.beat_s, config)
    seen: dict[tuple[str, str], str] = {}
    for table, model in tenant.models.items():
        key = (model.name or table, model.version)
        if key in seen:
            yield Problem(
                (*path, "models", table),
                f"name {key[0]} and version {key[1]} are those of models.{seen[key]} already",
            )
        seen.setdefault(key, table)


def _restart(path: KeyPath, base_s: float, cap_s: float) -> Iterator[Problem]:
    if base_s > cap_s:
        yield Problem((*path, "base_s"), f"must be at most restart.cap_s ({cap_s}), not {base_s}")


def _beat(path: KeyPath, beat_s: float, config: Config) -> Iterator[Problem]:
    least = 2 * config.daemon.beat_every_s
    if beat_s < least:
        yield Problem((*path, "beat_s"), f"must be at least twice daemon.beat_every_s ({least}), not {beat_s}")


def _health(config: Config) -> Iterator[Problem]:
    listen = config.health.listen
    if listen.startswith("unix:"):
        length = len(os.fsencode(listen.removeprefix("unix:")))
        if length > MAX_SOCKET_PATH_BYTES:
            yield Problem(("health", "listen"), f"its path has {length} bytes and may have {MAX_SOCKET_PATH_BYTES}")
    elif listen and not _is_port(listen):
        yield Problem(("health", "listen"), f"the port must be from 1 to 65535, not {listen.rpartition(':')[2]}")


def _socket_paths(config: Config) -> Iterator[Problem]:
    runtime_dir = config.daemon.runtime_dir
    own = (addresses.workers_path(runtime_dir), addresses.operator_path(runtime_dir))
    longest = max(len(os.fsencode(path)) for path in own)
    if longest > MAX_SOCKET_PATH_BYTES:
        yield Problem(
            ("daemon", "runtime_dir"),
            f"{runtime_dir} is {longest - MAX_SOCKET_PATH_BYTES} bytes too long: the paths of sockets in it may have"
            f" {MAX_SOCKET_PATH_BYTES} bytes",
        )
        return
    for tenant in config.tenants:
        # The longer one of its two sockets.
        path = addresses.arenas_path(runtime_dir, tenant)
        length = len(os.fsencode(path))
        if length > MAX_SOCKET_PATH_BYTES:
            yield Problem(
                ("tenants", tenant),
                f"the path of its socket, {path}, has {length} bytes and may have {MAX_SOCKET_PATH_BYTES}:"
                " shorten the name or daemon.runtime_dir",
            )


def _tcp_addresses(config: Config) -> Iterator[Problem]:
    taken: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
    for name, tenant in config.tenants.items():
        if tenant.tcp is None:
            continue
        path = ("tenants", name, "tcp", "listen")
        listen = tenant.tcp.listen
        host, _, port = listen.rpartition(":")
        if not config.router.curve_secret_key_file:
            yield Problem(path, "a tcp endpoint needs router.curve_secret_key_file")
        if not _is_port(listen):
            yield Problem(path, f"the port must be from 1 to 65535, not {port}")
        elif not _is_host(host):
            yield Problem(path, f"{host} is no address")
        for other, other_listen in taken[int(port)]:
            if _overlap(host, other_listen.rpartition(":")[0]):
                yield Problem(path, f"{listen} collides with {other_listen} of tenant {other}")
        taken[int(port)].append((name, listen))


def _is_port(listen: str) -> bool:
    return 1 <= int(listen.rpartition(":")[2]) <= 65_535


def _is_host(host: str) -> bool:
    try:
        return host == "*" or bool(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return False


def _overlap(one: str, other: str) -> bool:
    everywhere = {"*", "0.0.0.0", "[::]"}  # noqa: S104 - compared, not bound
    return one == other or one in everywhere or other in everywhere
