"""What the death of a worker or of the router means for its tenant, for the others and for the router."""

from __future__ import annotations

from dataclasses import replace

from tests.support.fleet import KILLED, STRICT, FleetWorld, of_type, spawns, touched
from tests.support.supervision import CRASH, make_fault, make_spec
from trtd.core import lifecycle
from trtd.core.fleet import (
    ROUTER,
    AdmitWorker,
    ChildEffect,
    ChildEvent,
    CloseWorker,
    ConfigureTenant,
    DrainRequested,
    Phase,
    ResumeRequested,
    RevokeWorker,
    SetAvailability,
    SetGate,
    TenantEmptied,
    TenantRestartRequested,
    TimePassed,
)
from trtd.core.ids import TenantName, WorkerId
from trtd.core.lifecycle import State, Timeouts
from trtd.core.restarts import RestartPolicy

A, B = TenantName("a"), TenantName("b")


def test_a_death_touches_no_other_child():
    """A dead worker's leases are revoked and a successor is spawned; nobody else hears of it."""
    world = FleetWorld(make_spec("a", replicas=2), make_spec("b"))
    world.kill("a/0")
    effects = world.deliver("a/0")
    assert [type(effect) for effect in effects] == [RevokeWorker, ChildEffect]
    assert effects[0].worker == WorkerId(A, 0, 1)
    assert touched(effects) == {"a/0"}


def test_a_tenant_is_available_while_any_worker_can_be_expected():
    """Only when the last worker is suspended does the router learn that there is none, with the reason."""
    world = FleetWorld(make_spec("a", replicas=2, restarts=STRICT))
    world.kill("a/0", CRASH)
    assert of_type(world.run(), SetAvailability) == []
    world.now += 1.0
    world.kill("a/1", CRASH)
    (told,) = of_type(world.run(), SetAvailability)
    what = "worker a/1 is quarantined"
    assert told == SetAvailability(A, False, f"{what}: crashed with SIGSEGV", None, f"{what}: it crashed")
    effects = world.handle(ResumeRequested(A))
    assert SetAvailability(A, True, "", None) in effects
    assert spawns(effects) == ["a/0", "a/1"]


def test_retry_after_is_the_time_until_the_probe():
    """An unavailable tenant tells when its first worker is tried again, counted from the telling."""
    world = FleetWorld(make_spec("a", restarts=RestartPolicy(budget=0, probe_after_s=60.0)))
    world.kill("a/0")
    (told,) = of_type(world.run(), SetAvailability)
    assert told.retry_after_s == 60.0
    world.now += 20.0
    world.kill(ROUTER)
    assert of_type(world.run(), SetAvailability)[-1].retry_after_s == 40.0


def test_a_reason_is_one_short_line():
    """Whatever a worker writes as its fault, clients see one line of bounded length."""
    world = FleetWorld(make_spec("a", restarts=STRICT))
    fault = make_fault(message="first\nsecond " + "x" * 1000, permanent=True)
    world.handle(ChildEvent("a/0", lifecycle.FaultReported(1, fault)))
    (told,) = of_type(world.run(), SetAvailability)
    assert told.reason.startswith("worker a/0 is quarantined: first second xxx")
    assert len(told.reason) == 300


def test_a_stuck_worker_is_no_hope():
    """A worker that cannot be reaped makes its tenant unavailable until it is gone."""
    world = FleetWorld(make_spec("a"))
    world.handle(ChildEvent("a/0", lifecycle.FaultReported(1, make_fault())))
    world.queues["a/0"].clear()
    told = of_type(world.pass_time(10.0), SetAvailability)
    assert ("worker a/0 is stuck: went wrong", "worker a/0 is stuck: it crashed") in [
        (one.reason, one.told) for one in told
    ]
    world.handle(ChildEvent("a/0", lifecycle.Exited(1, KILLED, 0.5)))
    assert spawns(world.effects)[-1] == "a/0"


def test_impossible_events_are_handed_on_to_the_log():
    """An illegal event of a child becomes an effect, so that the shell can log it."""
    world = FleetWorld(make_spec("a"))
    effects = world.fleet.handle(ChildEvent("a/0", lifecycle.Greeted(1)), world.now)
    assert [type(effect.effect) for effect in effects] == [lifecycle.IllegalEvent]


def test_words_of_children_that_are_forgotten_change_nothing():
    """Late events about a worker or tenant that does not exist are dropped."""
    world = FleetWorld(make_spec("a"))
    for event in (
        ChildEvent("gone/0", lifecycle.Beat(1, 1, 0)),
        TenantEmptied(TenantName("gone"), 0),
        DrainRequested(TenantName("gone")),
        ResumeRequested(TenantName("gone")),
        TenantRestartRequested(TenantName("gone")),
    ):
        assert world.handle(event) == []


def test_a_new_router_is_told_everything_again():
    """After its restart the router knows gates, availability, admitted and closed workers; no worker is touched."""
    world = FleetWorld(make_spec("a", replicas=2), make_spec("b"), make_spec("c", restarts=STRICT))
    world.busy.update("ab")
    world.kill("c/0")
    world.run()
    world.handle(DrainRequested(B))
    world.fleet.handle(ChildEvent("a/0", lifecycle.RestartRequested()), world.now)
    world.kill(ROUTER)
    effects = world.deliver(ROUTER)
    assert touched(effects) == {ROUTER}
    while world.told is None:
        effects = world.deliver(ROUTER)
    assert world.told.gates == {"a": (True, 0), "b": (False, 1), "c": (True, 0)}
    assert [world.told.availability[name].is_available for name in "abc"] == [True, True, False]
    assert {str(worker) for worker in world.told.admitted} == {"a/1#1", "b/0#1"}
    assert {str(worker) for worker in world.told.closed} == {"a/0#1"}
    order = [type(effect) for effect in effects[:5]]
    assert order == [ConfigureTenant, SetAvailability, SetGate, CloseWorker, AdmitWorker]


def test_a_router_that_dies_while_a_tenant_drains_does_not_hold_the_drain_up():
    """The closed gate is told again with its epoch, and the new router's word that it is empty counts."""
    world = FleetWorld(make_spec("a"))
    world.busy.add("a")
    world.handle(DrainRequested(A))
    world.kill(ROUTER)
    world.busy.clear()
    world.run()
    assert world.phase("a") is Phase.DRAINED


def test_a_router_that_is_suspended_holds_no_drain_up():
    """Without a router there are no accepted requests, so draining tenants count as empty."""
    world = FleetWorld(make_spec("a"), policy=STRICT)
    world.busy.add("a")
    world.handle(DrainRequested(A))
    world.kill(ROUTER)
    world.run()
    assert (world.states()[ROUTER], world.phase("a")) == (State.QUARANTINED, Phase.DRAINED)


def test_resume_and_reload_are_also_the_routers_way_out():
    """Resuming any tenant, or applying a configuration, starts a suspended router."""
    world = FleetWorld(make_spec("a"), policy=STRICT)
    world.kill(ROUTER)
    world.run()
    assert spawns(world.handle(ResumeRequested(A))) == [ROUTER]
    world.run()
    world.kill(ROUTER)
    world.run()
    assert spawns(world.apply(make_spec("a"))) == [ROUTER]


def test_time_reaches_only_the_children_whose_time_has_come():
    """A silent worker is found at its deadline while the others go on."""
    world = FleetWorld(make_spec("a"), make_spec("b", timeouts=replace(Timeouts(), beat_s=5.0)))
    world.handle(ChildEvent(ROUTER, lifecycle.Beat(1, 1, 0)))
    assert world.fleet.next_deadline() == world.now + 0.5
    assert world.fleet.due(world.now) == {}
    world.now += 0.5
    world.handle(ChildEvent(ROUTER, lifecycle.Beat(1, 2, 0)))
    assert world.fleet.due(world.now) == {"a/0": world.pids["a/0"]}
    assert world.handle(TimePassed()) == []
    world.now += 0.5
    effects = world.handle(TimePassed())
    assert touched(effects) == {"a/0"}
    assert of_type(effects, RevokeWorker)[0].worker == WorkerId(A, 0, 1)
