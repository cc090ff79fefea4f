"""A tenant's configuration and its changes: who is started, replaced one after the other, drained away."""

from __future__ import annotations

from tests.support.fleet import STRICT, FleetWorld, spawns, touched
from tests.support.supervision import make_spec
from trtd.core import lifecycle
from trtd.core.faults import ExitStatus
from trtd.core.fleet import (
    ROUTER,
    ChildEffect,
    CloseWorker,
    ConfigureTenant,
    DrainRequested,
    ForgetTenant,
    Phase,
    ResumeRequested,
    SetAvailability,
    SetGate,
)
from trtd.core.ids import TenantName, WorkerId
from trtd.core.lifecycle import State, Timeouts

A, B = TenantName("a"), TenantName("b")


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
    assert [type(effect) for effect in effects] == [ConfigureTenant, SetAvailability, SetGate, ChildEffect]


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
    assert world.fleet.children["a/0"].deadline == world.now + 7.0 / 2
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
    assert world.states() == {ROUTER: State.READY, "a/1": State.READY}
    assert world.fleet.outdated_workers(A) == []
