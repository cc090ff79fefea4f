"""Tenants and their workers as operators and the configuration want them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.fleet import KILLED, FleetWorld
from tests.support.supervision import CLEAN, CRASH, make_fault, make_spec
from trtd.core import lifecycle
from trtd.core.faults import ExitStatus
from trtd.core.fleet import (
    ROUTER,
    AdmitWorker,
    ChildEffect,
    ChildEvent,
    CloseWorker,
    ConfigureTenant,
    DrainRequested,
    ForgetTenant,
    Phase,
    ResumeRequested,
    RevokeWorker,
    SetAvailability,
    SetGate,
    ShutdownRequested,
    TenantEmptied,
    TenantRestartRequested,
    TimePassed,
)
from trtd.core.ids import TenantName, WorkerId
from trtd.core.lifecycle import State, Timeouts
from trtd.core.restarts import RestartPolicy

A, B = TenantName("a"), TenantName("b")
STRICT = RestartPolicy(budget=0, probe_after_s=0.0)


def touched(effects):
    """Names of children that the effects concern."""
    return {effect.name for effect in effects if isinstance(effect, ChildEffect)}


def spawns(effects):
    return [
        effect.name
        for effect in effects
        if isinstance(effect, ChildEffect) and isinstance(effect.effect, lifecycle.Spawn)
    ]


def of_type(effects, kind):
    return [effect for effect in effects if isinstance(effect, kind)]


# Configuration


def test_first_configuration_starts_router_and_workers():
    """Router and workers are spawned, and the router knows each tenant's gate and admits its workers."""
    world = FleetWorld(make_spec("a", replicas=2), make_spec("b"))
    assert set(world.states().values()) == {State.READY}
    assert world.told.gates == {"a": (True, 0), "b": (True, 0)}
    assert {str(worker) for worker in world.told.admitted} == {"a/0#1", "a/1#1", "b/0#1"}
    assert all(world.pids[str(worker.key)] == pid for worker, pid in world.told.admitted.items())


def test_the_same_configuration_again_changes_nothing():
    """A reload without a difference has no effect at all."""
    specs = (make_spec("a", replicas=2), make_spec("b"))
    assert FleetWorld(*specs).apply(*specs) == []


def test_a_new_tenant_touches_no_other():
    """Adding a tenant concerns its own workers and the router's knowledge of it."""
    world = FleetWorld(make_spec("a"))
    effects = world.apply(make_spec("a"), make_spec("b"))
    assert touched(effects) == {"b/0"}
    assert [type(effect) for effect in effects] == [ConfigureTenant, ChildEffect, SetAvailability, SetGate]


def test_a_removed_tenant_is_drained_before_it_vanishes():
    """Its gate is closed, its workers live until its last answer is out, then it is forgotten everywhere."""
    world = FleetWorld(make_spec("a"), make_spec("b"))
    world.busy.add("a")
    assert world.apply(make_spec("b")) == [SetGate(A, False, 1)]
    assert (world.phase("a"), world.run()) == (Phase.REMOVING, [])
    assert world.states()["a/0"] is State.READY
    world.finish_requests("a")
    assert world.run()[-1] == ForgetTenant(A)
    assert set(world.states()) == {ROUTER, "b/0"}
    assert set(world.fleet.tenants) == {B}
    assert world.told.configured == {"b"}


def test_a_tenant_that_comes_back_while_it_is_removed_serves_again():
    """Named again before it vanished, its gate opens and its workers go on."""
    world = FleetWorld(make_spec("a"))
    world.busy.add("a")
    world.apply()
    assert world.apply(make_spec("a")) == [SetGate(A, True, 2)]
    assert (world.phase("a"), world.states()["a/0"]) == (Phase.SERVING, State.READY)


def test_a_tenant_that_comes_back_after_it_vanished_has_new_generations():
    """Frames of its former life cannot be mistaken for those of the new one."""
    world = FleetWorld(make_spec("a"))
    world.apply()
    world.run()
    world.apply(make_spec("a"))
    assert world.fleet.children["a/0"].generation == 2


def test_a_drained_tenant_that_is_removed_vanishes_at_once():
    """Nothing is left to be waited for."""
    world = FleetWorld(make_spec("a"))
    world.handle(DrainRequested(A))
    world.run()
    assert world.apply() == [ForgetTenant(A)]


def test_settings_of_the_router_are_told_without_touching_a_worker():
    """A changed router_digest is told at once, with gate and availability after it."""
    world = FleetWorld(make_spec("a"))
    effects = world.apply(make_spec("a", router_digest="r2"))
    assert effects == [ConfigureTenant(A), SetAvailability(A, True, "", None), SetGate(A, True, 0)]


def test_new_timeouts_and_limits_apply_to_living_workers():
    """They are adopted without a restart."""
    world = FleetWorld(make_spec("a"))
    timeouts = Timeouts(beat_s=7.0)
    assert world.apply(make_spec("a", timeouts=timeouts, restarts=STRICT)) == []
    world.beat()
    assert world.fleet.children["a/0"].deadline == world.now + 7.0
    world.kill("a/0")
    world.run()
    assert world.states()["a/0"] is State.QUARANTINED


def test_more_replicas_are_started_and_fewer_are_drained():
    """Only the replicas that come or go are touched; surplus ones finish what they hold and are forgotten."""
    world = FleetWorld(make_spec("a"))
    assert spawns(world.apply(make_spec("a", replicas=3))) == ["a/1", "a/2"]
    world.run()
    effects = world.apply(make_spec("a", replicas=1))
    assert effects == [CloseWorker(WorkerId(A, 1, 1)), CloseWorker(WorkerId(A, 2, 1))]
    assert "a/0" not in touched(world.run())
    assert set(world.states()) == {ROUTER, "a/0"}


def test_a_surplus_replica_that_is_named_again_comes_back():
    """A replica that is drained away and wanted again is restarted once it is gone."""
    world = FleetWorld(make_spec("a", replicas=2))
    world.apply(make_spec("a", replicas=1))
    world.apply(make_spec("a", replicas=2))
    world.run()
    assert world.states()["a/1"] is State.READY
    assert world.fleet.children["a/1"].generation == 2


# Rolling restarts


def test_changed_workers_are_replaced_one_after_the_other():
    """With three replicas, at no moment is more than one out of service, and the gate stays open."""
    world = FleetWorld(make_spec("a", replicas=3), make_spec("b"))
    world.apply(make_spec("a", replicas=3, worker_digest="w2"), make_spec("b"))
    least = 3
    while sources := world.sources():
        least = min(least, sum(world.states()[f"a/{i}"] is State.READY for i in range(3)))
        world.deliver(sources[0])
    assert least == 2
    assert world.fleet.outdated_workers(A) == []
    assert [world.fleet.children[name].generation for name in ("a/0", "a/1", "a/2", "b/0")] == [2, 2, 2, 1]
    assert world.told.gates["a"] == (True, 0)


def test_an_operators_restart_rolls_likewise():
    """TenantRestartRequested replaces every worker once; a worker that died meanwhile counts as replaced."""
    world = FleetWorld(make_spec("a", replicas=2))
    world.kill("a/1")
    world.handle(TenantRestartRequested(A))
    world.run()
    assert [world.fleet.children[name].generation for name in ("a/0", "a/1")] == [2, 2]
    assert not world.fleet.children["a/0"].deaths


def test_a_bad_change_stops_at_the_first_worker():
    """When the successor cannot start, the other replicas go on serving with what they have."""
    world = FleetWorld(make_spec("a", replicas=2))
    world.start_status["a/0"] = ExitStatus(code=65)
    world.apply(make_spec("a", replicas=2, worker_digest="w2"))
    world.run()
    assert world.states() == {ROUTER: State.READY, "a/0": State.QUARANTINED, "a/1": State.READY}
    assert world.fleet.outdated_workers(A) == ["a/1"]
    assert world.told.availability["a"].is_available


def test_a_stuck_replica_does_not_hold_up_the_others():
    """What the kernel holds may never come back, so a change goes on without it."""
    world = FleetWorld(make_spec("a", replicas=2))
    world.handle(ChildEvent("a/0", lifecycle.FaultReported(1, make_fault())))
    world.queues["a/0"].clear()
    world.now += 10.0
    world.beat()
    world.handle(TimePassed())
    assert world.states()["a/0"] is State.STUCK
    world.apply(make_spec("a", replicas=2, worker_digest="w2"))
    world.run()
    assert world.fleet.children["a/1"].generation == 2
    assert world.fleet.outdated_workers(A) == ["a/0"]


def test_a_correction_starts_what_a_bad_change_suspended():
    """A worker QUARANTINED for a permanent fault is started when its tenant's worker_digest changes."""
    world = FleetWorld()
    world.start_status["a/0"] = ExitStatus(code=78)
    world.apply(make_spec("a"))
    world.run()
    assert world.states()["a/0"] is State.QUARANTINED
    world.start_status.clear()
    assert world.apply(make_spec("a", router_digest="r2"))[0] == ConfigureTenant(A)
    assert world.states()["a/0"] is State.QUARANTINED
    assert spawns(world.apply(make_spec("a", worker_digest="w2", router_digest="r2"))) == ["a/0"]


def test_a_worker_that_is_still_starting_is_started_anew_for_the_new_configuration():
    """A change during a start kills the process that reads the old configuration."""
    world = FleetWorld()
    world.apply(make_spec("a"))
    world.deliver("a/0")
    effects = world.apply(make_spec("a", worker_digest="w2"))
    assert effects == [ChildEffect("a/0", lifecycle.KillGroup(1))]
    world.run()
    assert (world.states()["a/0"], world.fleet.children["a/0"].generation) == (State.READY, 2)


def test_a_change_during_a_drain_is_made_good_on_resume():
    """Workers that outlived a drain with an old configuration are replaced when the tenant serves again."""
    world = FleetWorld(make_spec("a"))
    world.busy.add("a")
    world.handle(DrainRequested(A))
    assert world.apply(make_spec("a", worker_digest="w2")) == []
    world.handle(ResumeRequested(A))
    world.run()
    assert world.fleet.children["a/0"].generation == 2


# Deaths


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
    assert told == SetAvailability(A, False, "worker a/1 is quarantined: crashed with SIGSEGV", None)
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
    assert SetAvailability(A, False, "worker a/0 is stuck: went wrong", None) in told
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


# The router


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


# Drain and resume


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
    assert of_type(effects, SetAvailability) == [SetAvailability(A, False, "tenant a is drained", None)]


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
    """Out of DRAINED: workers are spawned, availability is told, and then the gate opens."""
    world = FleetWorld(make_spec("a"))
    world.handle(DrainRequested(A))
    world.run()
    effects = world.handle(ResumeRequested(A))
    assert spawns(effects) == ["a/0"]
    assert effects[-2:] == [SetAvailability(A, True, "", None), SetGate(A, True, 2)]
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


# Shutdown


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


# Time


def test_time_reaches_only_the_children_whose_time_has_come():
    """A silent worker is found at its deadline while the others go on."""
    world = FleetWorld(make_spec("a"), make_spec("b", timeouts=replace(Timeouts(), beat_s=5.0)))
    world.handle(ChildEvent(ROUTER, lifecycle.Beat(1, 1, 0)))
    assert world.fleet.next_deadline() == world.now + 1.0
    world.now += 0.5
    world.handle(ChildEvent(ROUTER, lifecycle.Beat(1, 2, 0)))
    world.now += 0.5
    effects = world.handle(TimePassed())
    assert touched(effects) == {"a/0"}
    assert of_type(effects, RevokeWorker)[0].worker == WorkerId(A, 0, 1)
