"""The status record, from a fleet and facts that a test made."""

from __future__ import annotations

import dataclasses
import json
import typing
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.supervision import NOW, make_child, make_deaths, make_fault
from tests.unit.supervisor.test_totals import make_stats
from trtd.config.model import Config
from trtd.config.model import Tenant as TenantTable
from trtd.core.faults import FaultKind
from trtd.core.fleet import ROUTER, Failure, Fleet, Phase, Place, Role, Tenant, TenantSpec
from trtd.core.ids import TenantName
from trtd.core.lifecycle import State, Timeouts
from trtd.core.restarts import RestartPolicy
from trtd.supervisor.facts import Facts
from trtd.supervisor.settings import tenant_endpoint
from trtd.supervisor.status import About, make_status
from trtd.supervisor.totals import COUNTERS
from trtd.wire import status as schema
from trtd.wire.messages import ModelDescription

ABOUT = About(1, "1.2.3", NOW - 60, ("/etc/trtd/trtd.toml",), "/run/trtd", "cgroup /x", {}, {})
WALL = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_fleet(*states: State, phase: Phase = Phase.SERVING, **changes: Any) -> Fleet:
    """A fleet with a ready router and one tenant `a`, whose workers are in these states."""
    fleet = Fleet(Timeouts(), RestartPolicy())
    fleet.children[ROUTER] = make_child(State.READY, name=ROUTER)
    spec = TenantSpec(TenantName("a"), len(states), Timeouts(), RestartPolicy(), "w", "r")
    tenant = Tenant(spec, phase)
    for replica, state in enumerate(states):
        tenant.places[replica] = Place(f"a/{replica}", tenant.target)
        fleet.children[f"a/{replica}"] = make_child(state, name=f"a/{replica}", **changes)
    fleet.tenants[spec.name] = tenant
    return fleet


def make_facts(**tenant: Any) -> Facts:
    """Facts about tenant `a`, available unless said otherwise."""
    facts = Facts()
    seen = facts.tenant("a", NOW)
    for name, value in {"is_open": True, "is_available": True, **tenant}.items():
        setattr(seen, name, value)
    return facts


def status_of(fleet: Fleet, facts: Facts, now: float = NOW + 5, **options: Any) -> Any:
    return make_status(fleet, facts, ABOUT, now=now, wall=WALL, **options)


def expect_schema(value: Any, kind: Any) -> None:
    """Fail unless the value is what the typed dictionary declares, all the way down."""
    if typing.is_typeddict(kind):
        hints = typing.get_type_hints(kind)
        assert value.keys() == hints.keys()
        for key, hint in hints.items():
            expect_schema(value[key], hint)
    elif typing.get_origin(kind) is list:
        for item in value:
            expect_schema(item, typing.get_args(kind)[0])
    elif typing.get_args(kind):
        present = [option for option in typing.get_args(kind) if option is not type(None)]
        assert value is None or expect_schema(value, present[0]) is None
    else:
        assert isinstance(value, (int, float) if kind is float else kind), (value, kind)


def test_the_record_has_exactly_the_declared_keys():
    """Every key that `trtd.wire.status` declares is there, with its type, and no other; it is JSON."""
    facts = make_facts()
    facts.child("a/0").models = (ModelDescription("m", "1", (), (), True, 8),)
    fleet = make_fleet(State.READY, State.BACKOFF, last_fault=make_fault())
    record = status_of(fleet, facts)
    expect_schema(record, schema.Status)
    assert json.loads(json.dumps(record)) == record
    assert record["v"] == 1


@pytest.mark.parametrize(
    ("states", "phase", "is_available", "health", "is_ready"),
    [
        ((State.READY, State.READY), Phase.SERVING, True, "ready", True),
        ((State.READY, State.BACKOFF), Phase.SERVING, True, "degraded", True),
        ((State.STARTING,), Phase.SERVING, True, "waiting", False),
        ((State.QUARANTINED,), Phase.SERVING, False, "unavailable", False),
        ((State.READY,), Phase.DRAINING, True, "draining", False),
        ((State.STOPPED,), Phase.DRAINED, False, "drained", False),
    ],
)
def test_health_in_one_word(states, phase, is_available, health, is_ready):
    """A tenant's health follows from its phase, its workers, and whether one can be expected."""
    record = status_of(make_fleet(*states, phase=phase), make_facts(is_available=is_available))
    (tenant,) = record["tenants"]
    assert (tenant["health"], tenant["is_ready"]) == (health, is_ready)
    assert record["health"] == ("ready" if health == "ready" else "degraded")


def test_without_a_router_nothing_is_ready():
    """A ready worker behind a dead router is not readiness."""
    fleet = make_fleet(State.READY)
    fleet.children[ROUTER] = make_child(State.BACKOFF, name=ROUTER)
    record = status_of(fleet, make_facts())
    assert record["health"] == "degraded"
    assert record["tenants"][0]["is_ready"] is False


def begin_replacement(fleet: Fleet, state: State) -> Tenant:
    """A successor `a/1` in this state beside the tenant's one worker, which is outdated."""
    tenant = fleet.tenants[TenantName("a")]
    tenant.round = 1
    tenant.places[1] = Place("a/1", tenant.target, Role.SUCCESSOR)
    fleet.children["a/1"] = make_child(state, name="a/1")
    return tenant


@pytest.mark.parametrize("state", [State.STARTING, State.WARMING, State.BACKOFF])
def test_a_replacement_under_way_is_told_and_costs_no_health(state):
    """The successor is among the workers, behind the one that serves, and the tenant is ready all the time."""
    fleet = make_fleet(State.READY)
    begin_replacement(fleet, state)
    (record,) = status_of(fleet, make_facts())["tenants"]
    assert [(worker["name"], worker["role"]) for worker in record["workers"]] == [
        ("a/0", "member"), ("a/1", "successor"),
    ]  # fmt: skip
    assert (record["health"], record["is_ready"]) == ("ready", True)
    assert record["replacement"] == {"state": "running", "left": ["a/0", "a/1"], "reason": ""}


@pytest.mark.parametrize(("state", "rest"), [(State.READY, "serves"), (State.QUARANTINED, "does not serve either")])
def test_a_replacement_that_failed_says_why_and_what_serves(state, rest):
    """The reason has the successor's fault, and whether the old version really serves."""
    fleet = make_fleet(state)
    tenant = begin_replacement(fleet, State.STOPPED)
    del tenant.places[1], fleet.children["a/1"]
    tenant.failure = Failure("a/1", make_fault(message="truncated\nfile"), NOW)
    (record,) = status_of(fleet, make_facts())["tenants"]
    assert record["replacement"]["state"] == "failed"
    assert record["replacement"]["reason"] == (
        f"successor a/1 did not become ready: truncated file; the old version {rest}"
    )


def test_no_replacement_without_an_outdated_worker():
    """A worker that only crashed is no replacement, and nor is anything in a drained tenant."""
    assert status_of(make_fleet(State.BACKOFF), make_facts())["tenants"][0]["replacement"] is None
    fleet = make_fleet(State.STOPPED, phase=Phase.DRAINED)
    fleet.tenants[TenantName("a")].round = 1
    assert status_of(fleet, make_facts())["tenants"][0]["replacement"] is None


def test_why_and_when_it_comes_back():
    """A worker in backoff says what ended the last one, how often it died lately, and when it is started again."""
    fault = make_fault(FaultKind.CRASHED, message="crashed\nwith SIGSEGV")
    fleet = make_fleet(State.BACKOFF, last_fault=fault, deaths=make_deaths(NOW - 100, NOW - 10, NOW), deadline=NOW + 7)
    (worker,) = status_of(fleet, make_facts())["tenants"][0]["workers"]
    assert worker["last_fault"] == {
        "kind": "crashed", "message": "crashed with SIGSEGV", "blame": "tenant", "permanent": False,
        "domain": "process", "code": 0, "texts": [],
    }  # fmt: skip
    assert (worker["deaths_in_window"], worker["restart_in_s"]) == (2, 2.0)


def test_one_tenant_can_be_asked_for():
    """The record of one tenant has no other, and the daemon's part as ever."""
    fleet = make_fleet(State.READY)
    assert status_of(fleet, make_facts(), only="a")["tenants"][0]["name"] == "a"
    assert status_of(fleet, make_facts(), only="b")["tenants"] == []


def test_counters_are_all_told():
    """Each counter of the router stands in the record under its own name, beside the supervisor's own."""
    assert set(schema.CounterStatus.__annotations__) == {*COUNTERS, "abandoned", "excused"}
    facts = make_facts(excused=7)
    numbers = {name: number for number, name in enumerate(COUNTERS, start=10)}
    facts.tenant("a", NOW).totals.take(1, make_stats(**numbers), NOW + 1)
    assert status_of(make_fleet(State.READY), facts)["tenants"][0]["counters"] == {
        **numbers,
        "abandoned": 0,
        "excused": 7,
    }


def test_barred_clients_and_poisons_are_shown():
    """Who is barred, for how long and for how many deaths, as the router last said; the count of remembered inputs."""
    facts = make_facts()
    stats = make_stats(poisons=3, barred=(("uid:666", 5.0, 5),))
    facts.tenant("a", NOW).totals.take(1, stats, NOW + 1)
    (record,) = status_of(make_fleet(State.READY), facts)["tenants"]
    assert record["poisons"] == 3
    assert record["barred"] == [{"owner": "uid:666", "for_s": 5.0, "deaths": 5}]


def test_shared_memory_is_shown_with_its_bound():
    """The newest router's word on arenas stands beside the configured limit, and ends with that router."""
    config = Config(tenants={"a": {"models": {"m": {"path": "/srv/m.onnx"}}, "max_arena_bytes": 8192}})
    about = dataclasses.replace(ABOUT, tables=config.tenants, endpoints={"a": tenant_endpoint(config, "a")})
    facts = make_facts()
    totals = facts.tenant("a", NOW).totals
    totals.take(1, make_stats(arena_bytes=4096, arena_count=1), NOW + 1)

    def shown() -> tuple[int, int, int]:
        (tenant,) = make_status(make_fleet(State.READY), facts, about, now=NOW, wall=WALL)["tenants"]
        return tenant["arena_bytes"], tenant["arena_count"], tenant["arena_limit_bytes"]

    assert shown() == (4096, 1, 8192)
    totals.router_lost()
    assert shown() == (0, 0, 8192)


def test_a_tenant_whose_socket_is_lost_is_not_ready():
    """While nobody can connect the tenant is not ready, and the reason says why; refusals add up over routers."""
    facts = make_facts()
    totals = facts.tenant("a", NOW).totals
    totals.take(1, make_stats(connections=3, connections_refused=5, unreachable="lost"), NOW + 1)
    (tenant,) = status_of(make_fleet(State.READY), facts)["tenants"]
    assert (tenant["is_ready"], tenant["reason"], tenant["connections"]) == (False, "lost", 3)
    totals.take(2, make_stats(connections=1, connections_refused=2), NOW + 2)
    (tenant,) = status_of(make_fleet(State.READY), facts)["tenants"]
    assert (tenant["is_ready"], tenant["reason"], tenant["connections_refused"]) == (True, "", 7)


def test_what_runs_where_is_known_before_a_worker_is():
    """Placement, queue limit and the configured files are told from the configuration, and that nothing is signed."""
    table = TenantTable(models={"m": {"path": "/srv/m.plan"}}, runtime="tensorrt", tensorrt={"device": 1})
    config = Config(tenants={"a": table.model_dump()})
    about = dataclasses.replace(ABOUT, tables=config.tenants, endpoints={"a": tenant_endpoint(config, "a")})
    record = make_status(make_fleet(State.STARTING), make_facts(), about, now=NOW, wall=WALL)
    (tenant,) = record["tenants"]
    assert (tenant["placement"], tenant["isolation"], tenant["queue_limit"]) == ("gpu 1", "process", 1024)
    assert tenant["engines"] == [{"model": "m", "version": "1", "file": "/srv/m.plan", "signature": "unsigned"}]


@pytest.mark.parametrize(("runtime", "isolation"), [("tensorrt", "mps"), ("onnxruntime", "process")])
def test_who_may_share_an_mps_server_is_told(runtime, isolation):
    """Where workers are told of an MPS server, the tenants that use a GPU are not said to be kept apart by process."""
    table = TenantTable(models={"m": {"path": "/srv/m"}}, runtime=runtime)
    config = Config(tenants={"a": table.model_dump()})
    about = dataclasses.replace(ABOUT, tables=config.tenants, is_mps=True)
    (tenant,) = make_status(make_fleet(State.READY), make_facts(), about, now=NOW, wall=WALL)["tenants"]
    assert tenant["isolation"] == isolation


@pytest.mark.parametrize(
    ("required", "router", "is_ready"),
    [(True, State.READY, False), (False, State.READY, True), (False, State.BACKOFF, False)],
)
def test_the_daemon_is_ready_when_what_is_required_is(required, router, is_ready):
    """A tenant that cannot serve takes the daemon's readiness away where it is required; without a router all goes."""
    fleet = make_fleet(State.BACKOFF)
    fleet.children[ROUTER] = make_child(router, name=ROUTER)
    table = TenantTable(models={"m": {"path": "/srv/m.onnx"}}, required=required)
    about = dataclasses.replace(ABOUT, tables={"a": table})
    record = make_status(fleet, make_facts(is_available=False), about, now=NOW, wall=WALL)
    assert (record["health"], record["is_ready"]) == ("degraded", is_ready)
    assert record["tenants"][0]["is_required"] is required
