"""Replacements on request: the successor earns READY first, and whatever becomes of it, the old workers serve on."""

from __future__ import annotations

import pytest

from tests.support.fleet import FleetWorld, of_type, spawns, touched
from tests.support.supervision import CRASH, make_fault, make_spec
from trtd.core import lifecycle
from trtd.core.faults import ExitStatus, FaultKind
from trtd.core.fleet import (
    ROUTER,
    AdmitWorker,
    ChildEffect,
    ChildEvent,
    CloseWorker,
    DrainRequested,
    Phase,
    Replacement,
    ResumeRequested,
    Role,
    SetAvailability,
    SetGate,
    ShutdownRequested,
    TenantRestartRequested,
    TimePassed,
)
from trtd.core.ids import TenantName, WorkerId
from trtd.core.lifecycle import State
from trtd.core.restarts import RestartPolicy

A = TenantName("a")
BAD_MODEL = ExitStatus(code=65)
STOP_FIRST = Replacement.STOP_FIRST


def fill(world, tenant="a"):
    """State of each worker of the tenant, by number."""
    workers = world.fleet.tenants[TenantName(tenant)].workers
    return {replica: world.states()[name] for replica, name in workers.items()}


def roles(world):
    return {replica: place.role for replica, place in sorted(world.fleet.tenants[A].places.items())}


def generations(world):
    return {name: child.generation for name, child in world.fleet.children.items() if name != ROUTER}


def least_ready(world, replicas):
    """Deliver everything; how many of tenant a's workers were READY at the worst moment, and how many lived at most."""
    least, most = replicas, replicas
    while sources := world.sources():
        states = list(fill(world).values())
        least = min(least, states.count(State.READY))
        most = max(most, len(states))
        world.deliver(sources[0])
    return least, most


# The successor first


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("request_", ["reload", "restart"])
def test_every_worker_serves_until_its_successor_is_ready(replicas, request_):
    """One worker more than wanted at most, none less at any moment; the gate stays open and no neighbour is touched."""
    world = FleetWorld(make_spec("a", replicas=replicas), make_spec("b"))
    before = {world.pids[name] for name in world.fleet.tenants[A].workers.values()}
    if request_ == "reload":
        world.apply(make_spec("a", replicas=replicas, worker_digest="w2"), make_spec("b"))
    else:
        world.handle(TenantRestartRequested(A))
    assert least_ready(world, replicas) == (replicas, replicas + 1)
    assert world.fleet.outdated_workers(A) == []
    assert not before & {world.pids[name] for name in world.fleet.tenants[A].workers.values()}
    assert world.told.gates["a"] == (True, 0)
    assert generations(world)["b/0"] == 1


def test_the_router_hears_of_the_successor_before_the_old_one_is_closed():
    """So a request always finds a worker: the successor is admitted, then the old one gets nothing new."""
    world = FleetWorld(make_spec("a"))
    world.handle(TenantRestartRequested(A))
    effects = world.run()
    order = [effect for effect in effects if isinstance(effect, AdmitWorker | CloseWorker)]
    assert [type(effect) for effect in order] == [AdmitWorker, CloseWorker]
    assert (order[0].worker, order[1].worker) == (WorkerId(A, 1, 2), WorkerId(A, 0, 1))


def test_the_successor_takes_the_lowest_free_number_and_the_next_generation():
    """Its generation is above those of all workers that are there, so clients see that its answers are newer."""
    world = FleetWorld(make_spec("a", replicas=2))
    world.kill("a/1")
    world.run()
    world.handle(TenantRestartRequested(A))
    world.run()
    assert generations(world) == {"a/0": 4, "a/2": 3}
    world.handle(TenantRestartRequested(A))
    world.run()
    assert generations(world) == {"a/0": 6, "a/1": 5}


def test_the_successor_carries_on_the_counts_of_the_old_worker():
    """Restarts and the newest fault are told of the work, not of the number of its place."""
    world = FleetWorld(make_spec("a"))
    world.kill("a/0", CRASH)
    world.run()
    world.handle(TenantRestartRequested(A))
    world.run()
    child = world.fleet.children["a/1"]
    assert (child.restarts, child.last_fault.message) == (2, "crashed with SIGSEGV")


def test_a_worker_that_is_replaced_finishes_what_it_holds():
    """It drains; its place is forgotten when it is gone, and only then the next one is replaced."""
    world = FleetWorld(make_spec("a", replicas=2))
    world.handle(TenantRestartRequested(A))
    while world.queues.get("a/2"):
        world.deliver("a/2")
    assert fill(world) == {0: State.DRAINING, 1: State.READY, 2: State.READY}
    assert roles(world) == {0: Role.REPLACED, 1: Role.MEMBER, 2: Role.MEMBER}
    world.run()
    assert len(fill(world)) == 2


# A successor that fails


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("request_", ["reload", "restart"])
def test_a_successor_that_cannot_start_changes_nothing(replicas, request_):
    """Nobody is closed or stopped, the tenant stays available, and the reason is kept."""
    world = FleetWorld(make_spec("a", replicas=replicas))
    name = f"a/{replicas}"
    world.start_status[name] = BAD_MODEL
    if request_ == "reload":
        effects = world.apply(make_spec("a", replicas=replicas, worker_digest="w2"))
    else:
        effects = world.handle(TenantRestartRequested(A))
    effects += world.run()
    assert touched(effects) == {name}
    assert of_type(effects, SetAvailability) == of_type(effects, CloseWorker) == []
    assert fill(world) == dict.fromkeys(range(replicas), State.READY)
    assert str(world.fleet.tenants[A].failure) == (
        f"successor {name} did not become ready: cannot use its model (exit code 65)"
    )


def test_a_permanent_fault_is_tried_once():
    """One spawn, and no other however much time passes."""
    world = FleetWorld(make_spec("a"))
    world.start_status["a/1"] = BAD_MODEL
    world.handle(TenantRestartRequested(A))
    world.run()
    first = len(world.effects)
    for _ in range(100):
        world.beat()
        world.pass_time(0.9)
    assert spawns(world.effects[first:]) == []


def test_a_fault_that_may_pass_is_tried_three_times():
    """The successor of a healthy worker is not tried for ever, nor given up for one death."""
    world = FleetWorld(make_spec("a"))
    world.start_status["a/1"] = CRASH
    effects = world.handle(TenantRestartRequested(A))
    for _ in range(20):
        effects = [*effects, *world.run()]
        world.beat()
        effects += world.pass_time(0.5)
    assert spawns(effects) == ["a/1"] * 3
    assert world.fleet.tenants[A].failure.fault.message == "crashed with SIGSEGV"
    assert fill(world) == {0: State.READY}


def test_want_of_memory_names_the_way_out():
    """A successor for which there is no memory beside the old worker says which key needs none."""
    world = FleetWorld(make_spec("a"))
    world.handle(TenantRestartRequested(A))
    world.deliver("a/1")
    fault = make_fault(FaultKind.OUT_OF_MEMORY, message="4 GiB wanted", permanent=True)
    world.handle(ChildEvent("a/1", lifecycle.FaultReported(2, fault)))
    world.run()
    assert world.fleet.progress(A).failure == (
        'successor a/1 did not become ready: 4 GiB wanted; tenants.a.replace = "stop-first" needs no memory for two;'
        " the old version serves"
    )


def test_a_reason_that_is_a_sentence_goes_on_without_its_full_stop():
    """What a runtime ends with a full stop is followed by one mark, not by two."""
    world = FleetWorld(make_spec("a"))
    world.handle(TenantRestartRequested(A))
    world.deliver("a/1")
    fault = make_fault(FaultKind.BAD_MODEL, message="parsing failed.", permanent=True)
    world.handle(ChildEvent("a/1", lifecycle.FaultReported(2, fault)))
    world.run()
    assert world.fleet.progress(A).failure == (
        "successor a/1 did not become ready: parsing failed; the old version serves"
    )


def test_a_successor_whose_second_try_succeeds_takes_over():
    """A death at its start is no failure of the replacement yet."""
    world = FleetWorld(make_spec("a"))
    world.start_status["a/1"] = CRASH
    world.handle(TenantRestartRequested(A))
    world.deliver("a/1")
    world.start_status.clear()
    world.run()
    assert fill(world) == {1: State.READY}
    assert world.fleet.tenants[A].failure is None


@pytest.mark.parametrize("how", ["same configuration", "resume", "restart"])
def test_reload_resume_and_restart_try_again(how):
    """A replacement that failed is tried again by whoever asks for it, and by nobody else."""
    world = FleetWorld(make_spec("a"))
    world.start_status["a/1"] = BAD_MODEL
    world.apply(make_spec("a", worker_digest="w2"))
    world.run()
    world.start_status.clear()
    if how == "same configuration":
        effects = world.apply(make_spec("a", worker_digest="w2"))
    else:
        effects = world.handle(ResumeRequested(A) if how == "resume" else TenantRestartRequested(A))
    assert spawns(effects) == ["a/1"]
    assert world.fleet.tenants[A].failure is None
    world.run()
    assert fill(world) == {1: State.READY}


def test_the_former_configuration_again_ends_the_failure():
    """When the configuration goes back to what serves, nothing is left to be replaced."""
    world = FleetWorld(make_spec("a"))
    world.start_status["a/1"] = BAD_MODEL
    world.apply(make_spec("a", worker_digest="w2"))
    world.run()
    assert world.apply(make_spec("a")) == []
    assert (world.fleet.tenants[A].failure, fill(world)) == (None, {0: State.READY})


@pytest.mark.parametrize("is_failed", [True, False])
def test_a_crash_beside_a_replacement_comes_back_with_what_served(is_failed):
    """The old worker that dies is restarted in its place with its old settings, whatever its successor does."""
    world = FleetWorld(make_spec("a"))
    old = world.fleet.tenants[A].places[0].target
    if is_failed:
        world.start_status["a/1"] = BAD_MODEL
    world.apply(make_spec("a", worker_digest="w2"))
    if is_failed:
        world.run()
    else:
        world.deliver("a/1")
    world.kill("a/0")
    effects = world.deliver("a/0")
    assert spawns(effects) == ["a/0"]
    assert of_type(effects, SetAvailability) == []
    assert world.fleet.tenants[A].places[0].target == old
    world.run()
    assert fill(world) == ({0: State.READY} if is_failed else {1: State.READY})


def test_a_successor_of_a_worker_that_is_suspended_is_a_hope():
    """A stuck worker makes its tenant unavailable until a restart gives it a successor, and that one takes over."""
    world = FleetWorld(make_spec("a"))
    world.handle(ChildEvent("a/0", lifecycle.FaultReported(1, make_fault())))
    world.queues["a/0"].clear()
    world.pass_time(10.0)
    world.run()
    effects = world.handle(TenantRestartRequested(A))
    assert SetAvailability(A, True, "", None) in effects
    world.run()
    assert fill(world) == {0: State.STUCK, 1: State.READY}
    assert roles(world) == {0: Role.REPLACED, 1: Role.MEMBER}


def test_a_stuck_successor_of_a_former_version_is_no_failure_of_the_present_one():
    """Where the kernel keeps a successor that was to become something else, the present version gets another place."""
    world = FleetWorld(make_spec("a"))
    world.apply(make_spec("a", worker_digest="bad"))
    world.deliver("a/1")
    world.handle(ChildEvent("a/1", lifecycle.FaultReported(2, make_fault())))
    world.queues["a/1"].clear()
    world.apply(make_spec("a", worker_digest="good"))
    world.pass_time(10.0)
    assert world.states()["a/1"] is State.STUCK
    world.run()
    assert world.fleet.tenants[A].failure is None
    assert world.fleet.outdated_workers(A) == []
    assert State.READY in fill(world).values()


def test_a_stuck_replica_does_not_hold_up_the_others():
    """What the kernel holds may never come back, so all are replaced beside it, itself first."""
    world = FleetWorld(make_spec("a", replicas=2))
    world.handle(ChildEvent("a/0", lifecycle.FaultReported(1, make_fault())))
    world.queues["a/0"].clear()
    world.now += 10.0
    world.beat()
    world.handle(TimePassed())
    assert world.states()["a/0"] is State.STUCK
    world.apply(make_spec("a", replicas=2, worker_digest="w2"))
    world.run()
    assert world.fleet.outdated_workers(A) == []
    assert sorted(fill(world).values()) == [State.READY, State.READY, State.STUCK]


def test_workers_that_never_served_are_started_anew_where_they_are():
    """Nothing is lost by it, so all of them at once and without a worker more than wanted."""
    world = FleetWorld()
    world.start_status |= {"a/0": BAD_MODEL, "a/1": BAD_MODEL}
    world.apply(make_spec("a", replicas=2))
    world.run()
    world.start_status.clear()
    assert spawns(world.apply(make_spec("a", replicas=2, worker_digest="w2"))) == ["a/0", "a/1"]
    world.run()
    assert fill(world) == {0: State.READY, 1: State.READY}


def test_a_restart_starts_what_is_quarantined():
    """A suspended worker serves nobody: it is started anew at once, and the others follow when it is ready."""
    world = FleetWorld(make_spec("a", replicas=2, restarts=RestartPolicy(budget=0, probe_after_s=0.0)))
    world.kill("a/1", CRASH)
    world.run()
    effects = world.handle(TenantRestartRequested(A))
    assert spawns(effects) == ["a/1"]
    world.run()
    assert world.fleet.outdated_workers(A) == []
    assert list(fill(world).values()) == [State.READY, State.READY]


# Other wishes meanwhile


def test_a_newer_configuration_takes_over_the_successor():
    """A reload during a replacement starts the same successor anew; the old worker notices nothing."""
    world = FleetWorld(make_spec("a"))
    world.apply(make_spec("a", worker_digest="w2"))
    world.deliver("a/1")
    effects = world.apply(make_spec("a", worker_digest="w3"))
    assert effects == [ChildEffect("a/1", lifecycle.KillGroup(2))]
    world.run()
    assert fill(world) == {1: State.READY}
    assert world.fleet.tenants[A].places[1].target.worker_digest == "w3"


def test_a_change_that_is_taken_back_ends_the_successor():
    """When what serves is what is wanted again, the successor goes."""
    world = FleetWorld(make_spec("a"))
    world.apply(make_spec("a", worker_digest="w2"))
    world.deliver("a/1")
    assert touched(world.apply(make_spec("a"))) == {"a/1"}
    world.run()
    assert (fill(world), generations(world)) == ({0: State.READY}, {"a/0": 1})


def test_a_drain_ends_a_replacement_and_resume_makes_it_good():
    """The successor goes at once; the old worker finishes; what starts on resume is the newest version."""
    world = FleetWorld(make_spec("a"))
    world.busy.add("a")
    world.apply(make_spec("a", worker_digest="w2"))
    world.deliver("a/1")
    assert ChildEffect("a/1", lifecycle.KillGroup(2)) in world.handle(DrainRequested(A))
    world.run()
    assert fill(world) == {0: State.READY}
    world.finish_requests("a")
    world.run()
    assert (world.phase("a"), fill(world)) == (Phase.DRAINED, {0: State.STOPPED})
    world.handle(ResumeRequested(A))
    world.run()
    assert fill(world) == {0: State.READY}
    assert world.fleet.outdated_workers(A) == []


def test_a_removal_ends_a_replacement():
    """Both the successor and the old worker are gone, and the tenant with them."""
    world = FleetWorld(make_spec("a"))
    world.apply(make_spec("a", worker_digest="w2"))
    world.deliver("a/1")
    world.apply()
    world.run()
    assert set(world.states()) == {ROUTER}


@pytest.mark.parametrize("is_forced", [True, False])
def test_a_shutdown_ends_a_replacement(is_forced):
    """No process is left, whatever the successor was doing."""
    world = FleetWorld(make_spec("a", replicas=2))
    world.handle(TenantRestartRequested(A))
    world.deliver("a/2")
    world.handle(ShutdownRequested(forced=is_forced))
    world.run()
    assert (world.fleet.is_stopped, world.pids) == (True, {})


def test_a_router_that_dies_meanwhile_hears_of_all_of_them():
    """The new one is told of the ready successor as a worker, and of the old one as closed."""
    world = FleetWorld(make_spec("a"))
    world.handle(TenantRestartRequested(A))
    world.kill(ROUTER)
    while world.queues.get("a/1"):
        world.deliver("a/1")
    assert fill(world) == {0: State.DRAINING, 1: State.READY}
    while world.told is None:
        world.deliver(ROUTER)
    assert {str(worker) for worker in world.told.admitted} == {"a/1#2"}
    assert {str(worker) for worker in world.told.closed} == {"a/0#1"}
    world.run()
    assert fill(world) == {1: State.READY}


def test_more_replicas_meanwhile_are_started_in_the_new_version():
    """They come at once and up to date; the old worker goes when its successor is ready."""
    world = FleetWorld(make_spec("a"))
    effects = world.apply(make_spec("a", replicas=3, worker_digest="w2"))
    assert spawns(effects) == ["a/1", "a/2"]
    assert least_ready(world, 1)[0] == 1
    assert world.fleet.outdated_workers(A) == []
    assert list(fill(world).values()) == [State.READY] * 3


def test_fewer_replicas_never_cost_the_worker_that_serves():
    """Of two, the one that cannot start goes, though it is the newer version."""
    world = FleetWorld(make_spec("a"))
    world.start_status["a/1"] = BAD_MODEL
    world.apply(make_spec("a", replicas=2, worker_digest="w2"))
    world.run()
    assert fill(world) == {0: State.READY, 1: State.QUARANTINED}
    world.apply(make_spec("a", replicas=1, worker_digest="w2"))
    assert fill(world)[0] is State.READY
    assert 1 not in fill(world) or roles(world)[1] is Role.SUCCESSOR


def test_a_version_that_does_not_serve_well_leaves_the_rest_alone():
    """When the first successor is suspended after it took over, the other old workers serve on."""
    world = FleetWorld(make_spec("a", replicas=2, restarts=RestartPolicy(budget=0, probe_after_s=0.0)))
    world.handle(TenantRestartRequested(A))
    while world.queues.get("a/2"):
        world.deliver("a/2")
    world.kill("a/2", CRASH)
    world.deliver("a/2")
    world.run()
    assert fill(world) == {1: State.READY, 2: State.QUARANTINED}
    assert world.fleet.outdated_workers(A) == ["a/1"]


# Stop first


def test_stop_first_never_has_a_worker_too_many():
    """With three replicas at no moment more than three, and not more than one out of service."""
    world = FleetWorld(make_spec("a", replicas=3, replacement=STOP_FIRST))
    world.apply(make_spec("a", replicas=3, worker_digest="w2", replacement=STOP_FIRST))
    assert least_ready(world, 3) == (2, 3)
    assert world.fleet.outdated_workers(A) == []
    assert generations(world) == {"a/0": 2, "a/1": 2, "a/2": 2}


def test_stop_first_stops_at_the_first_worker_that_fails():
    """When the successor cannot start, the other replicas go on serving with what they have."""
    world = FleetWorld(make_spec("a", replicas=2, replacement=STOP_FIRST))
    world.start_status["a/0"] = BAD_MODEL
    world.apply(make_spec("a", replicas=2, worker_digest="w2", replacement=STOP_FIRST))
    world.run()
    assert fill(world) == {0: State.QUARANTINED, 1: State.READY}
    assert world.fleet.outdated_workers(A) == ["a/1"]
    assert world.told.availability["a"].is_available


def test_stop_first_counts_a_worker_that_died_meanwhile_as_replaced():
    """A restart replaces every worker once, and its deaths before that do not count."""
    world = FleetWorld(make_spec("a", replicas=2, replacement=STOP_FIRST))
    world.kill("a/1")
    world.handle(TenantRestartRequested(A))
    world.run()
    assert generations(world) == {"a/0": 2, "a/1": 2}


def test_choosing_stop_first_ends_a_successor_that_is_under_way():
    """Who has no room for two gets it back at once."""
    world = FleetWorld(make_spec("a"))
    world.apply(make_spec("a", worker_digest="w2"))
    world.deliver("a/1")
    effects = world.apply(make_spec("a", worker_digest="w2", replacement=STOP_FIRST))
    assert effects == [ChildEffect("a/1", lifecycle.KillGroup(2))]
    world.run()
    assert (fill(world), generations(world)) == ({0: State.READY}, {"a/0": 2})


def test_a_new_way_of_replacement_replaces_nobody():
    """The key is about the next replacement."""
    world = FleetWorld(make_spec("a"))
    assert world.apply(make_spec("a", replacement=STOP_FIRST)) == []


def test_the_gate_opens_for_no_replacement():
    """Requests go on all the time: the gate is not touched by any of it."""
    world = FleetWorld(make_spec("a", replicas=2))
    world.handle(TenantRestartRequested(A))
    assert of_type(world.run(), SetGate) == []
