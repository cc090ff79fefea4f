"""What children and the fleet are told, derived from the configuration."""

from __future__ import annotations

import copy
import os
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.config import ACCOUNTS, make_config
from trtd.config.model import Config, Reload
from trtd.config.schema import Leaf, leaves, schema
from trtd.core.dispatch import TenantLimits
from trtd.core.lifecycle import Timeouts
from trtd.core.restarts import RestartPolicy
from trtd.errors import InvalidConfig
from trtd.supervisor import settings
from trtd.supervisor.model_files import Look, Stat, identities
from trtd.supervisor.peers import Peer
from trtd.wire.operator import Role
from trtd.wire.settings import CurveClient, ProbeSettings

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
FULL: dict[str, Any] = {
    "models": {
        "m": {"path": "/m.onnx", "version": "3", "name": "net", "probe": {"path": "/p.npz", "absolute": 0.5}},
        "n": {"path": "/n.onnx", "max_batch": 4, "max_delay_s": 0.01},
    },
    "tcp": {"listen": "*:5000", "clients": {"laptop": KEY}},
}


def stat_of(**sizes: int) -> Stat:
    """Looks at files of these names, `/NAME.onnx`, and these sizes; there is no other."""

    def stat(path: str) -> os.stat_result:
        name = path.strip("/").partition(".")[0]
        if name not in sizes:
            raise FileNotFoundError(path)
        return SimpleNamespace(st_dev=1, st_ino=1, st_size=sizes[name], st_mtime_ns=1, st_ctime_ns=1)  # type: ignore[return-value]

    return stat


def look_with(stat: Stat) -> Look:
    """Looks at the files of a worker by this function."""
    return lambda told: identities(told, stat)


def test_a_worker_is_told_its_tenants_table():
    """Every value of the tenant that concerns workers arrives; model names default to their tables'."""
    config = make_config(a=FULL | {"slots": 2, "threads": 3, "memory": {"limit_bytes": 7}})
    told = settings.worker_settings(config, "a", replica=1, generation=5, log_format="json")
    assert (told.tenant, told.replica, told.generation, told.runtime) == ("a", 1, 5, "onnxruntime")
    assert (told.slots, told.threads, told.memory_limit_bytes) == (2, 3, 7)
    assert (told.log_format, told.log_level, told.beat_every_s) == ("json", "info", 0.1)
    assert told.router_path == "/run/trtd/router/workers.sock"
    first, second = told.models
    assert (first.name, first.version, first.path) == ("net", "3", "/m.onnx")
    assert first.probe == ProbeSettings("/p.npz", 0.5, 1e-3)
    assert (second.name, second.version, second.max_batch, second.max_delay_s, second.probe) == (
        "n",
        "1",
        4,
        0.01,
        None,
    )


def test_the_router_is_told_its_section():
    """Mode bits become a number, an absent key file becomes None."""
    config = make_config()
    told = settings.router_settings(config, 2, "console")
    assert (told.generation, told.socket_mode, told.curve_secret_key_file) == (2, 0o666, None)
    config = Config.model_validate(
        config.model_dump() | {"router": {"socket_mode": "0660", "curve_secret_key_file": "/k"}}
    )
    told = settings.router_settings(config, 2, "console")
    assert (told.socket_mode, told.curve_secret_key_file) == (0o660, "/k")


def test_the_router_is_told_of_a_tenant():
    """Accounts become numbers, `*` a flag of its own, tcp an address with its keys."""
    config = make_config(
        a=FULL | {"allow_users": ("alice", "77"), "allow_groups": ("ml",), "weight": 4, "max_arena_bytes": 8192}, b={}
    )
    told = settings.tenant_endpoint(config, "a", ACCOUNTS)
    assert (told.allow_uids, told.allow_gids, told.allow_everyone) == ((1000, 77), (500,), False)
    assert told.address == "ipc:///run/trtd/a.sock"
    assert told.tcp_address == "tcp://*:5000"
    assert told.curve_clients == (CurveClient("laptop", KEY),)
    assert told.limits.weight == 4
    assert (told.arenas_path, told.max_arena_bytes) == ("/run/trtd/a.arenas", 8192)
    told = settings.tenant_endpoint(make_config(b={"allow_users": ("*",)}), "b", ACCOUNTS)
    assert (told.allow_uids, told.allow_everyone, told.tcp_address) == ((), True, None)


def test_accounts_that_vanished_are_refused():
    """An unknown user or group is InvalidConfig that names the key, for tenants and operators alike."""
    config = make_config(a={"allow_users": ("eve",)})
    with pytest.raises(InvalidConfig, match=r"tenants\.a\.allow_users: there is no user eve"):
        settings.tenant_specs(config, accounts=ACCOUNTS)
    config = Config.model_validate({"operators": {"viewer_groups": ["staff"]}})
    with pytest.raises(InvalidConfig, match=r"operators\.viewer_groups: there is no group staff"):
        settings.operator_roles(config, 1, ACCOUNTS)


def test_operators_have_the_roles_that_the_configuration_gives():
    """Names in the operators' section become the numbers by which a role is found."""
    section = {"operator_users": ["alice"], "viewer_groups": ["ml"]}
    roles = settings.operator_roles(Config.model_validate({"operators": section}), 5, ACCOUNTS)
    assert roles.own_uid == 5
    assert roles.role_of(Peer(1, 1000, frozenset())) is Role.OPERATOR
    assert roles.role_of(Peer(1, 1001, frozenset({500}))) is Role.VIEWER
    assert roles.role_of(Peer(1, 1001, frozenset())) is None


def test_defaults_agree_with_the_core():
    """The defaults in the configuration are those that the core documents."""
    config = make_config()
    (spec,) = settings.tenant_specs(config, look_with(stat_of()), ACCOUNTS)
    assert spec.timeouts == Timeouts()
    assert spec.restarts == RestartPolicy()
    assert settings.tenant_endpoint(config, "a").limits == TenantLimits()


@pytest.mark.parametrize(
    ("stated", "is_terminal", "expected"),
    [("auto", True, "console"), ("auto", False, "json"), ("json", True, "json"), ("console", False, "console")],
)
def test_the_log_format_follows_the_terminal_only_when_it_is_auto(stated, is_terminal, expected):
    """A format that is stated counts anywhere."""
    config = Config.model_validate({"log": {"format": stated}})
    assert settings.log_format(config, is_terminal=is_terminal) == expected


def digests(table: dict[str, Any], stat: Stat | None = None) -> tuple[str, str, Any]:
    (spec,) = settings.tenant_specs(make_config(a=table), look_with(stat or stat_of(m=1, n=1)), ACCOUNTS)
    return spec.worker_digest, spec.router_digest, (spec.replicas, spec.timeouts, spec.restarts, spec.replacement)


TENANT_LEAVES = [(path[2:], leaf) for path, leaf in leaves(schema()) if path[0] == "tenants"]
OTHER_STRINGS = {
    ("runtime",): "scripted",
    ("replace",): "stop-first",
    ("models", "NAME", "path"): "/other.onnx",
    ("models", "NAME", "version"): "9",
    ("models", "NAME", "name"): "other",
    ("models", "NAME", "batching"): "off",
    ("models", "NAME", "warm_up"): "off",
    ("models", "NAME", "probe", "path"): "/other.npz",
    ("tensorrt", "package_path"): "/opt/site",
    ("tensorrt", "library_path"): "/opt/lib",
    ("tensorrt", "lean_library"): "/opt/lib/lean.so",
    ("tensorrt", "on_unaccounted"): "restart",
    ("onnxruntime", "execution_mode"): "parallel",
    ("onnxruntime", "graph_optimization"): "off",
    ("onnxruntime", "provider_options", "NAME", "NAME"): "1",
    ("onnxruntime", "session_entries", "NAME"): "1",
    ("tcp", "listen"): "*:5001",
    ("tcp", "clients", "NAME"): KEY.replace("rq", "qr"),
}


NAMES = {
    ("tcp", "clients", "NAME"): "laptop",
    ("onnxruntime", "provider_options", "NAME"): "CPUExecutionProvider",
    ("onnxruntime", "provider_options", "NAME", "NAME"): "device_id",
    ("onnxruntime", "session_entries", "NAME"): "session.x",
}


def other_value(path: tuple[str, ...], leaf: Leaf) -> Any:
    """Another value that the key takes."""
    if path[-1] == "providers":
        return ["CUDAExecutionProvider"]
    if leaf.type is tuple:
        return ["/w.npz"] if path[-1] == "warm_up_inputs" else ["alice"] if path[-1] == "allow_users" else ["ml"]
    if leaf.type is bool:
        return not leaf.default
    if leaf.type is str:
        return OTHER_STRINGS[path]
    return leaf.default / 2 if leaf.type is float and leaf.default else leaf.default + 1


def full_table(path: tuple[str, ...] = (), value: Any = None) -> dict[str, Any]:
    """The full table, with another value under a key; NAME is what `NAMES` says, or else the model `m`."""
    table = copy.deepcopy(FULL)
    inner = table
    named = [NAMES.get(path[: at + 1], "m") if part == "NAME" else part for at, part in enumerate(path)]
    for part in named[:-1]:
        inner = inner.setdefault(part, {})
    if path:
        inner[named[-1]] = value
    return table


@pytest.mark.parametrize(("path", "leaf"), TENANT_LEAVES, ids=[".".join(path) for path, _ in TENANT_LEAVES])
def test_each_key_of_a_tenant_reaches_whom_it_concerns(path, leaf):
    """A changed key changes the workers' digest exactly when its reload replaces workers, and something in any case.

    `required` concerns neither workers nor router: the status record reads it from the configuration in force.
    """
    before = digests(full_table())
    after = digests(full_table(path, other_value(path, leaf)))
    assert (after != before) == (path != ("required",))
    assert (after[0] != before[0]) == (leaf.reload is Reload.WORKERS)


def test_a_replaced_model_file_replaces_the_workers():
    """Another model or probe file changes the workers' digest; the router does not care."""
    worker, router, _ = digests(FULL)
    assert digests(FULL) == digests(FULL, stat_of(m=1, n=1))
    for stat in (stat_of(m=2, n=1), stat_of(m=1), stat_of(m=1, n=1, p=1)):
        changed_worker, changed_router, _ = digests(FULL, stat)
        assert changed_worker != worker
        assert changed_router == router
