"""Drain, resume and shutdown: nobody is stopped before the last accepted request is answered."""

from __future__ import annotations

import pytest

from tests.support.fleet import STRICT, FleetWorld, of_type, spawns, touched
from tests.support.supervision import CLEAN, make_fault, make_spec
from trtd.core import lifecycle
from trtd.core.fleet import (
    ROUTER,
    ChildEffect,
    ChildEvent,
    DrainRequested,
    Phase,
    ResumeRequested,
    SetAvailability,
    SetGate,
    ShutdownRequested,
    TenantEmptied,
    TenantRestartRequested,
    TimePassed,
)
from trtd.core.ids import TenantName
from trtd.core.lifecycle import State

A, B = TenantName("a"), TenantName("b")


def test_a_drain_waits_for_the_last_answer():
    """Workers live, and are replaced when they die, until TenantEmptied; then they stop and the tenant is DRAINED."""
    world = FleetWorld(make_spec("a"), make_spec("b"))
    world.busy.add("a")
    assert world.handle(DrainRequested(A)) == [SetGate(A, False, 1)]
    world.kill("a/0")
    world.run()
    assert (world.phase("a"), world.states()["a/0"]) == (Phase.DRAINING, State.READY)
    world.finish_requests("a")
    effects = world.run()
    assert (world.phase("a"), world.states()["a/0"]) == (Phase.DRAINED, State.STOPPED)
    assert touched(effects) == {"a/0"}
    assert of_type(effects, SetAvailability) == [
        SetAvailability(A, False, "tenant a is drained", None, "tenant a is drained")
    ]


def test_the_end_of_an_earlier_drain_does_not_end_a_later_one():
    """TenantEmptied of a gate that was opened again meanwhile is ignored."""
    world = FleetWorld(make_spec("a"))
    world.busy.add("a")
    world.handle(DrainRequested(A))
    world.handle(ResumeRequested(A))
    assert world.handle(TenantEmptied(A, 1)) == []
    world.handle(DrainRequested(A))
    assert world.handle(TenantEmptied(A, 1)) == []
    assert world.states()["a/0"] is State.READY
    assert world.handle(TenantEmptied(A, 3)) != []


def test_a_second_drain_and_a_drain_of_the_drained_change_nothing():
    """Draining is idempotent."""
    world = FleetWorld(make_spec("a"))
    world.handle(DrainRequested(A))
    assert world.handle(DrainRequested(A)) == []
    world.run()
    assert world.handle(DrainRequested(A)) == []


def test_resume_opens_the_gate_once_workers_can_be_expected():
    """Out of DRAINED: availability is told, then the gate opens, and workers are spawned."""
    world = FleetWorld(make_spec("a"))
    world.handle(DrainRequested(A))
    world.run()
    effects = world.handle(ResumeRequested(A))
    assert spawns(effects) == ["a/0"]
    assert effects[:2] == [SetAvailability(A, True, "", None), SetGate(A, True, 2)]
    world.run()
    assert world.states()["a/0"] is State.READY


def test_resume_takes_back_a_stop_that_is_under_way():
    """Resumed while its workers stop, a tenant gets them back."""
    world = FleetWorld(make_spec("a"))
    world.deaf.add("a/0")
    world.handle(DrainRequested(A))
    world.run()
    assert world.states()["a/0"] is State.STOPPING
    world.handle(ResumeRequested(A))
    world.kill("a/0", CLEAN)
    world.run()
    assert (world.phase("a"), world.states()["a/0"]) == (Phase.SERVING, State.READY)


def test_a_tenant_without_a_worker_drains_too():
    """All workers suspended: the router fails the queue, says that it is empty, and the tenant is DRAINED."""
    world = FleetWorld(make_spec("a", restarts=STRICT))
    world.kill("a/0")
    world.run()
    world.handle(DrainRequested(A))
    world.run()
    assert (world.phase("a"), world.states()["a/0"]) == (Phase.DRAINED, State.STOPPED)


def test_operators_cannot_resume_what_the_configuration_removed():
    """A REMOVING tenant goes on vanishing."""
    world = FleetWorld(make_spec("a"))
    world.busy.add("a")
    world.apply()
    assert world.handle(ResumeRequested(A)) == []


@pytest.mark.parametrize("replicas", [1, 4])
def test_a_drained_tenant_follows_its_configuration_without_starting(replicas):
    """A reload changes the places of a DRAINED tenant, and none of them is started."""
    world = FleetWorld(make_spec("a", replicas=2))
    world.handle(DrainRequested(A))
    world.run()
    assert touched(world.apply(make_spec("a", replicas=replicas, worker_digest="w2"))) == set()
    assert world.phase("a") is Phase.DRAINED
    assert len(world.states()) == 1 + replicas


def test_shutdown_drains_tenants_then_stops_workers_then_the_router():
    """The router stays until the last worker is gone, because it holds the clients' last answers."""
    world = FleetWorld(make_spec("a"), make_spec("b"))
    world.busy.add("a")
    assert world.handle(ShutdownRequested()) == [SetGate(A, False, 1), SetGate(B, False, 1)]
    world.run()
    assert world.states() == {ROUTER: State.READY, "a/0": State.READY, "b/0": State.STOPPED}
    assert not world.fleet.is_stopped
    world.finish_requests("a")
    stops = [effect.name for effect in of_type(world.run(), ChildEffect)]
    assert stops == ["a/0", ROUTER]
    assert world.fleet.is_stopped


def test_the_router_outlives_a_worker_that_is_slow_to_stop():
    """Emptied tenants are not enough: the router goes when the last worker is gone."""
    world = FleetWorld(make_spec("a"))
    world.deaf.add("a/0")
    world.handle(ShutdownRequested())
    world.run()
    assert world.states() == {ROUTER: State.READY, "a/0": State.STOPPING}
    world.kill("a/0", CLEAN)
    world.run()
    assert world.fleet.is_stopped


def test_a_router_that_dies_during_shutdown_is_restarted_for_the_waiting_clients():
    """As long as a tenant drains, the router is replaced."""
    world = FleetWorld(make_spec("a"))
    world.busy.add("a")
    world.handle(ShutdownRequested())
    world.kill(ROUTER)
    world.run()
    assert world.states()[ROUTER] is State.READY
    world.finish_requests("a")
    world.run()
    assert world.fleet.is_stopped


@pytest.mark.parametrize("is_second", [True, False])
def test_forced_shutdown_kills_everything_at_once(is_second):
    """A second request, or a forced first one, sends KillGroup to every child that lives."""
    world = FleetWorld(make_spec("a", replicas=2))
    world.busy.add("a")
    if is_second:
        world.handle(ShutdownRequested())
    effects = world.handle(ShutdownRequested(forced=not is_second))
    kills = {effect.name for effect in of_type(effects, ChildEffect) if isinstance(effect.effect, lifecycle.KillGroup)}
    assert kills == {ROUTER, "a/0", "a/1"}
    world.run()
    assert world.fleet.is_stopped


def test_shutdown_does_not_wait_for_what_the_kernel_holds():
    """A STUCK worker does not keep the daemon from stopping."""
    world = FleetWorld(make_spec("a"))
    world.handle(ChildEvent("a/0", lifecycle.FaultReported(1, make_fault())))
    world.queues["a/0"].clear()
    world.pass_time(10.0)
    world.handle(ShutdownRequested())
    world.run()
    assert (world.states()["a/0"], world.fleet.is_stopped) == (State.STUCK, True)


def test_the_router_stays_until_it_has_answered_for_a_tenant_without_a_worker():
    """When all that is left of a tenant is STUCK, the router still has typed errors to send before it goes."""
    world = FleetWorld(make_spec("a"))
    world.handle(ChildEvent("a/0", lifecycle.FaultReported(1, make_fault())))
    world.queues["a/0"].clear()
    world.now += 10.0
    world.handle(ChildEvent(ROUTER, lifecycle.Beat(1, 1, 0)))
    world.handle(TimePassed())
    world.busy.add("a")
    world.handle(ShutdownRequested())
    world.run()
    assert world.states() == {ROUTER: State.READY, "a/0": State.STUCK}
    world.finish_requests("a")
    world.run()
    assert world.fleet.is_stopped


def test_shutdown_before_the_first_configuration_is_complete_at_once():
    """Nothing was started, so nothing is waited for."""
    world = FleetWorld()
    assert world.handle(ShutdownRequested()) == []
    assert world.fleet.is_stopped


def test_a_shutdown_is_not_taken_back():
    """Reloads, resumes and restarts during a shutdown are ignored."""
    world = FleetWorld(make_spec("a"))
    world.busy.add("a")
    world.handle(ShutdownRequested())
    assert world.apply(make_spec("a", worker_digest="w2"), make_spec("b")) == []
    assert world.handle(ResumeRequested(A)) == []
    assert world.handle(TenantRestartRequested(A)) == []
