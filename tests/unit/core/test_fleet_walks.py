"""Operators, reloads, deaths and lost routers at random moments: the fleet stays sound and calm settles everything."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fleet import KILLED, FleetWorld
from tests.support.supervision import CLEAN, make_spec
from trtd.core.faults import ExitStatus
from trtd.core.fleet import (
    ROUTER,
    DrainRequested,
    Phase,
    Replacement,
    ResumeRequested,
    ShutdownRequested,
    TenantRestartRequested,
)
from trtd.core.ids import TenantName
from trtd.core.lifecycle import State, Timeouts
from trtd.core.restarts import RestartPolicy

NAMES = ("a", "b")
QUICK = RestartPolicy(base_s=0.1, cap_s=0.5, healthy_after_s=5.0, budget=3, window_s=5.0, probe_after_s=2.0)
TIMEOUTS = Timeouts(beat_s=1.0, drain_s=2.0, stop_s=0.5, reap_s=0.5)
SPECS = [
    make_spec(name, replicas=replicas, worker_digest=digest, timeouts=TIMEOUTS, restarts=QUICK, replacement=replacement)
    for name in NAMES
    for replicas in (1, 3)
    for digest in ("w1", "w2")
    for replacement in Replacement
]
STATUSES = (KILLED, CLEAN, ExitStatus(code=65), ExitStatus(code=75))

TENANT = st.sampled_from(NAMES)
CONFIG = st.tuples(*(st.sampled_from([None, *(spec for spec in SPECS if spec.name == name)]) for name in NAMES))
ACTION = st.one_of(
    st.tuples(st.just("deliver"), st.integers(0, 7)),
    st.tuples(st.just("deliver"), st.integers(0, 7)),
    st.tuples(st.just("deliver"), st.integers(0, 7)),
    st.tuples(st.just("kill"), st.integers(0, 7), st.sampled_from(STATUSES)),
    st.tuples(st.just("kill_router")),
    st.tuples(st.just("configure"), CONFIG),
    st.tuples(st.just("drain"), TENANT),
    st.tuples(st.just("resume"), TENANT),
    st.tuples(st.just("restart"), TENANT),
    st.tuples(st.just("busy"), TENANT),
    st.tuples(st.just("finish"), TENANT),
    st.tuples(st.just("deaf"), st.integers(0, 7)),
    st.tuples(st.just("break"), st.integers(0, 7), st.sampled_from(STATUSES)),
    st.tuples(st.just("pass"), st.sampled_from([0.05, 0.3, 1.0, 3.0])),
    st.tuples(st.just("beat")),
)


def act(world, action):
    """Do one thing to the world; what does not fit the moment is left out."""
    names = sorted(world.fleet.children)
    living = sorted(world.pids)
    match action:
        case ("deliver", index):
            if sources := sorted(world.sources()):
                world.deliver(sources[index % len(sources)])
        case ("kill", index, status):
            if living:
                world.kill(living[index % len(living)], status)
        case ("kill_router",):
            if ROUTER in living:
                world.kill(ROUTER)
        case ("configure", specs):
            world.apply(*filter(None, specs))
        case ("drain", tenant):
            world.handle(DrainRequested(TenantName(tenant)))
        case ("resume", tenant):
            world.handle(ResumeRequested(TenantName(tenant)))
        case ("restart", tenant):
            world.handle(TenantRestartRequested(TenantName(tenant)))
        case ("busy", tenant):
            world.busy.add(tenant)
        case ("finish", tenant):
            world.finish_requests(tenant)
        case ("deaf", index):
            world.deaf.add(names[index % len(names)])
        case ("break", index, status):
            world.start_status[names[index % len(names)]] = status
        case ("pass", seconds):
            world.pass_time(seconds)
        case ("beat",):
            world.beat()


def calm(world):
    """Whatever was broken works again, operators resume what serves, and everybody lives on for a while."""
    world.start_status.clear()
    world.deaf.clear()
    for tenant in NAMES:
        world.finish_requests(tenant)
    world.run()
    world.apply(*(tenant.spec for tenant in world.fleet.tenants.values() if tenant.phase is not Phase.REMOVING))
    for name, tenant in list(world.fleet.tenants.items()):
        if tenant.phase is Phase.SERVING:
            world.handle(ResumeRequested(name))
    for _ in range(80):
        world.run()
        world.beat()
        world.pass_time(0.1)
    world.run()


@settings(max_examples=150, deadline=None)
@given(CONFIG, st.lists(ACTION, max_size=60))
def test_calm_after_any_storm_brings_every_wish_about(specs, actions):
    """After any mixture of events, once all is calm, nothing is left undone.

    Serving tenants have all workers READY, up to date and admitted at the router, draining ones are DRAINED, removed
    ones are gone.
    """
    world = FleetWorld(*filter(None, specs), policy=QUICK)
    world.apply(*filter(None, specs))
    for action in actions:
        act(world, action)
    calm(world)
    assert world.states()[ROUTER] is State.READY
    admitted = {str(worker): pid for worker, pid in world.told.admitted.items() if worker not in world.told.closed}
    wanted = {}
    for name, tenant in world.fleet.tenants.items():
        assert tenant.phase in (Phase.SERVING, Phase.DRAINED)
        assert len(tenant.workers) == tenant.spec.replicas
        is_serving = tenant.phase is Phase.SERVING
        assert world.told.gates[name] == (is_serving, tenant.gate_epoch)
        assert world.told.availability[name].is_available == is_serving
        if is_serving:
            assert world.fleet.outdated_workers(name) == []
        for worker in tenant.workers.values():
            child = world.fleet.children[worker]
            assert child.state is (State.READY if is_serving else State.STOPPED)
            if is_serving:
                wanted[f"{worker}#{child.generation}"] = world.pids[worker]
    assert admitted == wanted
    assert world.told.configured == set(world.fleet.tenants)


@settings(max_examples=75, deadline=None)
@given(CONFIG, st.lists(ACTION, max_size=30), st.booleans(), st.lists(ACTION, max_size=15))
def test_every_shutdown_ends(specs, before, is_forced, after):
    """Asked to shut down in the middle of anything, the fleet ends with no process left, whatever still happens."""
    world = FleetWorld(*filter(None, specs), policy=replace(QUICK, probe_after_s=0.0))
    for action in before:
        act(world, action)
    world.handle(ShutdownRequested(forced=is_forced))
    for action in after:
        act(world, action)
    world.start_status.clear()
    for tenant in NAMES:
        world.finish_requests(tenant)
    for _ in range(200):
        world.run()
        world.beat()
        world.pass_time(0.1)
        for tenant in NAMES:
            world.finish_requests(tenant)
    assert world.fleet.is_stopped
    assert world.pids == {}
