"""What a child lives through: starts, hangs, deaths, drains, stops; told as short sequences of events."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.supervision import (
    CLEAN,
    CRASH,
    GENERATION,
    NOW,
    PID,
    make_child,
    make_deaths,
    make_event,
    make_fault,
)
from trtd.core import lifecycle
from trtd.core.faults import ExitStatus, FaultDomain, FaultKind
from trtd.core.lifecycle import (
    AskToStop,
    Beat,
    BecameReady,
    Desired,
    Emptied,
    Exited,
    FaultReported,
    Greeted,
    KillGroup,
    RestartRequested,
    RevokeLeases,
    Spawn,
    Spawned,
    SpawnFailed,
    StartRequested,
    State,
    StopRequested,
    TimePassed,
    step,
)
from trtd.core.restarts import RestartPolicy
from trtd.errors import Blame

POLICY = RestartPolicy(base_s=1.0, cap_s=8.0, jitter=0.0, healthy_after_s=60.0, budget=4, window_s=100.0)


def live(child, *moments):
    """Step through (event, now) pairs and return the child with the effects of all of them."""
    effects = []
    for event, now in moments:
        child, done = step(child, event, now)
        lifecycle.check(child)
        effects.extend(done)
    return child, effects


def birth(child, at=NOW):
    """From STARTING to READY at one instant."""
    generation = child.generation
    moments = [(Spawned(generation, PID), at), (Greeted(generation), at), (BecameReady(generation), at)]
    return live(child, *moments)[0]


def crash(child, at, status=CRASH, draw=0.5):
    return step(child, Exited(child.generation, status, draw), at)


def test_first_death_is_followed_by_a_spawn_in_the_same_step():
    """A crash of a healthy child revokes its leases and spawns the next generation at once."""
    child, effects = crash(make_child(State.READY), NOW + 1)
    revoke, spawn = effects
    assert (revoke.generation, revoke.fault.kind) == (GENERATION, FaultKind.CRASHED)
    assert spawn == Spawn(GENERATION + 1)
    assert (child.state, child.generation, child.pid) == (State.STARTING, GENERATION + 1, None)


def test_restarts_are_counted_beyond_the_first_spawn():
    """The first spawn is no restart; each further one is."""
    child, _ = step(make_child(State.STOPPED, generation=0), StartRequested(), NOW)
    assert child.restarts == 0
    child, _ = crash(birth(child), NOW + 1)
    assert child.restarts == 1


def test_backoff_doubles_while_the_start_fails():
    """A child that never becomes ready waits 0, 1, 2, 4 seconds, then its budget of four deaths is used up."""
    child = make_child(State.STARTING, restarts_policy=POLICY)
    waits, now = [], NOW
    while child.state is not State.QUARANTINED:
        child, _ = crash(child, now)
        if child.state is State.BACKOFF:
            waits.append(child.deadline - now)
            now = child.deadline
            child, _ = step(child, TimePassed(), now)
        if child.state is State.STARTING:
            child, _ = step(child, Spawned(child.generation, PID), now)
    assert waits == [1.0, 2.0, 4.0]
    assert len(child.deaths) == 5


def test_a_healthy_period_makes_the_next_restart_immediate_again():
    """After healthy_after_s of READY, earlier failures do not delay the restart."""
    child = make_child(State.READY, restarts_policy=POLICY, failures=3)
    assert crash(child, NOW + 59)[0].state is State.BACKOFF
    child, _ = live(child, (Beat(GENERATION, 1, 0), NOW + 59.5))
    after, _ = crash(child, NOW + 60)
    assert (after.state, after.failures) == (State.STARTING, 1)


def test_deaths_that_left_the_window_do_not_count():
    """Five deaths suspend restarts only when they fall into one window."""
    old = make_deaths(*(NOW - 200 + i for i in range(4)))
    assert crash(make_child(State.READY, restarts_policy=POLICY, deaths=old), NOW + 1)[0].state is State.STARTING
    fresh = make_deaths(*(NOW - 4 + i for i in range(4)))
    assert crash(make_child(State.READY, restarts_policy=POLICY, deaths=fresh), NOW + 1)[0].state is State.QUARANTINED


def test_quarantine_tries_once_after_its_time():
    """A suspended child is probed at probe_after_s; a death of the probe suspends it again, even in a new window."""
    policy = replace(POLICY, probe_after_s=500.0)
    child = make_child(State.QUARANTINED, restarts_policy=policy, deadline=NOW + 500.0, failures=5)
    child, effects = step(child, TimePassed(), NOW + 500.0)
    assert (child.state, effects) == (State.STARTING, (Spawn(GENERATION + 1),))
    child, _ = crash(birth(child, NOW + 500), NOW + 510)
    assert (child.state, child.deadline) == (State.QUARANTINED, NOW + 1010)


def test_a_probe_that_stays_healthy_ends_the_suspension():
    """A probed child that served for healthy_after_s has its whole budget again."""
    child = make_child(State.READY, restarts_policy=POLICY, failures=5, is_probing=True)
    child, _ = live(child, (Beat(GENERATION, 1, 0), NOW + 60))
    after, _ = crash(child, NOW + 60.5)
    assert (after.state, after.is_probing, after.failures) == (State.STARTING, False, 1)


def test_quarantine_without_a_timed_probe_waits_for_the_operator():
    """With probe_after_s = 0 only StartRequested leads out, and then the budget is whole."""
    policy = replace(POLICY, probe_after_s=0.0)
    deaths = make_deaths(*(NOW + i for i in range(4)))
    child, _ = crash(make_child(State.READY, restarts_policy=policy, deaths=deaths), NOW + 5)
    assert (child.state, child.deadline) == (State.QUARANTINED, None)
    child, effects = step(child, StartRequested(), NOW + 6)
    assert (child.state, child.deaths, child.failures) == (State.STARTING, (), 0)
    assert effects == (Spawn(GENERATION + 1),)


@pytest.mark.parametrize("code", [65, 78])
def test_an_exit_that_no_restart_can_mend_suspends_at_once(code):
    """Exit codes 65 and 78 lead to QUARANTINED without a timed probe."""
    child, effects = crash(make_child(State.WARMING), NOW + 1, ExitStatus(code=code))
    assert (child.state, child.deadline, effects) == (State.QUARANTINED, None, ())
    assert child.fault.permanent


def test_a_reported_permanent_fault_suspends_once_the_process_is_gone():
    """The child's own report is the cause that stays, whatever status it leaves with; no probe is set."""
    fault = make_fault(FaultKind.BAD_MODEL, message="m.onnx: not a model", permanent=True)
    child, effects = step(make_child(State.WARMING), FaultReported(GENERATION, fault), NOW + 1)
    assert effects == (KillGroup(GENERATION),)
    child, _ = crash(child, NOW + 2, ExitStatus(signal=9))
    assert (child.state, child.fault, child.deadline) == (State.QUARANTINED, fault, None)


def test_a_late_report_explains_a_kill_better_than_the_kill():
    """A child that is killed for a slow start and then says why keeps its own word as the cause."""
    fault = make_fault(FaultKind.BAD_MODEL, permanent=True)
    child = make_child(State.WARMING)
    child, _ = step(child, TimePassed(), child.deadline)
    assert child.fault.kind is FaultKind.START_TIMED_OUT
    child, _ = live(child, (FaultReported(GENERATION, fault), NOW + 121), (make_event(Exited), NOW + 122))
    assert (child.state, child.fault) == (State.QUARANTINED, fault)


def test_a_complaint_that_is_not_sticky_changes_nothing():
    """A fault that is neither sticky nor permanent leaves a READY child in service."""
    child = make_child(State.READY)
    assert step(child, FaultReported(GENERATION, make_fault(sticky=False)), NOW + 0.5) == (child, ())


@pytest.mark.parametrize(("blame", "wait_s"), [(Blame.CLIENT, 1.0), (Blame.DEVICE, 2.0)])
def test_faults_that_others_are_to_blame_for_charge_no_budget(blame, wait_s):
    """Neither is charged; a device that stays ill still makes the wait grow, a client's input does not."""
    deaths = make_deaths(NOW - 3, NOW - 2, NOW - 1, NOW)
    child = make_child(State.READY, restarts_policy=POLICY, deaths=deaths, failures=2)
    child, _ = step(child, FaultReported(GENERATION, make_fault(blame=blame)), NOW + 0.5)
    child, _ = crash(child, NOW + 1)
    assert (child.state, child.deaths) == (State.BACKOFF, deaths)
    assert child.deadline == NOW + 1 + wait_s


OF_DEVICE = make_fault(FaultKind.STICKY_ERROR, blame=Blame.DEVICE, domain=FaultDomain.DEVICE, code=214)
AWAITED = make_fault(FaultKind.DEVICE_AWAITED, blame=Blame.DEVICE, domain=FaultDomain.DEVICE, code=802)


def die_of(child, fault, at):
    """A death with last words."""
    child, _ = step(child, FaultReported(child.generation, fault), at)
    return crash(child, at)[0]


def pass_backoff(child, at):
    """A child that is about to be started, started; the instant at which it is."""
    at = child.deadline or at
    return step(child, TimePassed(), at)[0], at


def test_an_ill_device_has_a_budget_of_its_own():
    """Deaths that are blamed on a device suspend restarts like others do, and leave the tenant's budget alone."""
    child, at = make_child(State.READY, restarts_policy=POLICY), NOW
    for number in range(POLICY.budget):
        child = die_of(child, OF_DEVICE, at)
        assert (len(child.device_deaths), child.deaths) == (number + 1, ())
        assert child.state in (State.STARTING, State.BACKOFF)
        child, at = pass_backoff(child, at)
        child = birth(child, at)
    child = die_of(child, OF_DEVICE, at)
    assert (child.state, child.deadline) == (State.QUARANTINED, at + POLICY.probe_after_s)


def test_a_probe_on_a_device_that_is_still_ill_suspends_again():
    """One try per probe_after_s, and not a whole budget of them."""
    child = make_child(State.QUARANTINED, restarts_policy=POLICY, deadline=NOW + 60.0, failures=5)
    child, _ = step(child, TimePassed(), NOW + 60.0)
    assert die_of(birth(child, NOW + 60.0), OF_DEVICE, NOW + 61.0).state is State.QUARANTINED


def test_a_device_that_is_awaited_costs_nothing_but_time():
    """However often a worker finds its device not there yet, it is tried again, at most cap_s later, for ever."""
    child, at = make_child(State.WARMING, restarts_policy=POLICY), NOW
    for _ in range(100):
        child = die_of(child, AWAITED, at)
        assert child.state in (State.STARTING, State.BACKOFF)
        assert (child.deaths, child.device_deaths) == ((), ())
        assert (child.deadline or at) - at <= POLICY.cap_s
        child, at = pass_backoff(child, at)
        child, _ = live(child, (Spawned(child.generation, PID), at), (Greeted(child.generation), at))
    assert child.last_fault.kind is FaultKind.DEVICE_AWAITED


def test_whose_child_it_is_is_blamed_where_nobody_else_is():
    """The router's own end is the daemon's; a fault with another blame keeps it."""
    router = make_child(State.READY, owner=Blame.DAEMON)
    assert crash(router, NOW + 0.5)[0].last_fault.blame is Blame.DAEMON
    assert step(router, TimePassed(), NOW + 1)[0].fault.blame is Blame.DAEMON
    assert die_of(router, OF_DEVICE, NOW + 0.5).last_fault.blame is Blame.DEVICE
    assert crash(make_child(State.READY), NOW + 0.5)[0].last_fault.blame is Blame.TENANT


def test_a_fresh_start_has_both_budgets():
    """Whoever starts or restarts a child by hand has reason to believe that the device is well, too."""
    deaths = make_deaths(NOW)
    suspended = make_child(State.QUARANTINED, deaths=deaths, device_deaths=deaths)
    child, _ = step(suspended, StartRequested(), NOW + 1)
    assert (child.deaths, child.device_deaths) == ((), ())


def test_leaving_with_code_zero_unasked_is_a_death():
    """A clean exit that nobody asked for is charged like any other."""
    child, effects = crash(make_child(State.READY), NOW + 1, CLEAN)
    assert len(child.deaths) == 1
    assert effects[0].fault.kind is FaultKind.EXITED


def test_a_spawn_that_fails_is_a_death():
    """SpawnFailed is charged and retried with backoff, so that a full process table is no busy loop."""
    child = make_child(State.STARTING, pid=None, deadline=None, failures=1)
    child, effects = step(child, SpawnFailed(GENERATION, "no more processes", 0.5), NOW + 1)
    assert (child.state, effects, len(child.deaths)) == (State.BACKOFF, (), 1)
    assert child.fault.message == "cannot be started: no more processes"


def test_silence_ends_service_before_the_process_is_reaped():
    """A READY child that is silent for beat_s has its leases revoked and is killed, and is charged when it is gone."""
    child = make_child(State.READY)
    child, effects = step(child, TimePassed(), NOW + child.timeouts.beat_s)
    revoke, kill = effects
    assert (revoke.fault.kind, kill) == (FaultKind.BEAT_MISSED, KillGroup(GENERATION))
    child, effects = crash(child, NOW + 2, ExitStatus(signal=9))
    assert (child.state, effects, len(child.deaths)) == (State.STARTING, (Spawn(GENERATION + 1),), 1)


def test_beats_keep_a_child_in_service():
    """Each beat puts the deadline of silence off."""
    child, effects = live(make_child(State.READY), *((Beat(GENERATION, i, 1), NOW + 0.9 * i) for i in range(1, 9)))
    assert (child.state, effects) == (State.READY, [])
    assert child.deadline == pytest.approx(NOW + 7.2 + child.timeouts.beat_s / 2)


def test_work_without_progress_ends_service():
    """A child that beats but completes nothing for progress_s with work in flight is killed as stalled."""
    child = make_child(State.READY)
    child, _ = live(child, *((Beat(GENERATION, 7, 1), NOW + 0.5 * i) for i in range(1, 61)))
    stalls_at = NOW + 0.5 + child.timeouts.progress_s
    child, effects = step(child, TimePassed(), stalls_at - 0.1)
    assert (child.deadline, effects) == (stalls_at, ())
    child, effects = step(child, TimePassed(), stalls_at)
    assert effects[0].fault.kind is FaultKind.PROGRESS_STALLED
    assert child.state is State.STOPPING


def test_an_idle_child_need_not_progress():
    """With nothing in flight the clock of progress stands still, and it starts anew with the next work."""
    child, _ = live(make_child(State.READY), *((Beat(GENERATION, 7, 0), NOW + 0.5 * i) for i in range(1, 101)))
    assert child.state is State.READY
    child, _ = step(child, Beat(GENERATION, 7, 1), NOW + 50.5)
    assert child.progress_at == NOW + 50.5


def test_silence_while_warming_means_nothing():
    """Loading a model may hold the interpreter: only warmup_s bounds WARMING."""
    child, _ = step(make_child(State.STARTING), make_event(Greeted), NOW)
    ends_at = NOW + child.timeouts.warmup_s
    child, effects = live(child, (TimePassed(), child.deadline), (TimePassed(), ends_at - 0.1))
    assert (child.state, child.deadline, effects) == (State.WARMING, ends_at, [])
    assert step(child, TimePassed(), ends_at)[0].state is State.STOPPING


def test_a_restart_waits_for_what_the_child_holds():
    """READY, RestartRequested, Emptied, Exited: drained, stopped politely and started at once, at no charge."""
    child, effects = live(
        make_child(State.READY, deaths=make_deaths(NOW), failures=1),
        (RestartRequested(), NOW + 0.1),
        (Emptied(GENERATION), NOW + 0.2),
        (Exited(GENERATION, CLEAN, 0.5), NOW + 0.3),
    )
    assert [type(effect).__name__ for effect in effects] == ["CloseGate", "RevokeLeases", "AskToStop", "Spawn"]
    assert effects[1].fault.kind is FaultKind.REQUESTED
    assert (child.state, child.deaths, child.failures) == (State.STARTING, make_deaths(NOW), 1)


def test_a_restart_does_not_wait_for_ever():
    """At drain_s the leases go to others, and the child is still asked politely."""
    child, _ = step(make_child(State.READY), RestartRequested(), NOW)
    child, _ = live(child, *((Beat(GENERATION, i, 1), NOW + 0.5 * i) for i in range(1, 60)))
    assert child.deadline == NOW + child.timeouts.drain_s
    child, effects = step(child, TimePassed(), NOW + child.timeouts.drain_s)
    assert [type(effect) for effect in effects] == [RevokeLeases, AskToStop]


def test_a_crash_while_draining_is_charged():
    """That a restart was asked for does not excuse a crash."""
    child, _ = crash(make_child(State.DRAINING), NOW + 0.5)
    assert (child.state, len(child.deaths), child.fault) == (State.STARTING, 1, None)
    assert child.last_fault.kind is FaultKind.CRASHED


def test_a_hang_while_draining_is_charged():
    """Nor does it excuse a hang: the death is tallied and the restart follows the policy."""
    child, _ = step(make_child(State.DRAINING, failures=1), TimePassed(), NOW + 1)
    assert child.state is State.STOPPING
    child, _ = crash(child, NOW + 2, ExitStatus(signal=9))
    assert (child.state, len(child.deaths), child.fault.kind) == (State.BACKOFF, 1, FaultKind.BEAT_MISSED)


def test_a_stop_escalates_to_a_kill_and_then_to_stuck():
    """AskToStop, then KillGroup at stop_s, then STUCK at reap_s, which only the exit ends."""
    child, effects = step(make_child(State.READY), StopRequested(), NOW)
    assert effects[-1] == AskToStop(GENERATION)
    child, effects = step(child, TimePassed(), NOW + 5)
    assert effects == (KillGroup(GENERATION),)
    child, effects = step(child, TimePassed(), NOW + 15)
    assert (child.state, child.deadline, effects) == (State.STUCK, None, ())
    child, effects = crash(child, NOW + 1000, ExitStatus(signal=9))
    assert (child.state, effects, child.fault.kind) == (State.STOPPED, (), FaultKind.STOP_TIMED_OUT)


def test_a_stuck_child_is_restarted_when_it_is_gone_and_wanted():
    """Nothing is spawned while the old process is there; its exit starts the successor."""
    child, effects = live(
        make_child(State.STUCK, desired=Desired.DOWN), (StartRequested(), NOW + 1), (make_event(Exited), NOW + 2)
    )
    assert (child.state, effects) == (State.STARTING, [Spawn(GENERATION + 1)])


def test_a_stop_that_is_taken_back_restarts_at_no_charge():
    """StopRequested, StartRequested, Exited: started again at once."""
    child, effects = live(
        make_child(State.READY),
        (StopRequested(), NOW),
        (StartRequested(), NOW + 1),
        (Exited(GENERATION, CLEAN, 0.5), NOW + 2),
    )
    assert (child.state, child.deaths, effects[-1]) == (State.STARTING, (), Spawn(GENERATION + 1))


def test_a_process_that_appears_after_the_stop_is_killed():
    """StopRequested while the spawn is under way: the process is killed as soon as it exists."""
    child, effects = live(
        make_child(State.STARTING, pid=None, deadline=None),
        (StopRequested(), NOW),
        (Spawned(GENERATION, PID), NOW + 0.1),
        (make_event(Exited), NOW + 0.2),
    )
    assert (child.state, effects) == (State.STOPPED, [KillGroup(GENERATION)])


def test_a_crash_during_a_polite_stop_is_remembered_but_not_charged():
    """The operator sees how it went; no budget pays for it."""
    child, _ = live(make_child(State.READY), (StopRequested(), NOW), (make_event(Exited), NOW + 1))
    assert (child.state, child.fault, child.deaths) == (State.STOPPED, None, ())
    assert child.last_fault.kind is FaultKind.CRASHED


def test_history_keeps_the_newest_transitions():
    """History is bounded and ends with the newest transition."""
    child, now = make_child(State.READY, restarts_policy=replace(POLICY, budget=1000)), NOW
    for _ in range(40):
        child, _ = step(child, RestartRequested(), now)
        child, _ = step(child, Emptied(child.generation), now)
        child, _ = step(child, Exited(child.generation, CLEAN, 0.5), now)
        child = birth(child, now)
    assert len(child.history) == lifecycle.HISTORY_LENGTH
    assert child.history[-1] == lifecycle.Transition(now, State.WARMING, "BecameReady", State.READY)


def test_a_new_policy_applies_to_the_next_death():
    """Timeouts and limits adopted while the child lives decide what happens next."""
    child = make_child(State.READY, deaths=make_deaths(*(NOW - 8 + i for i in range(8))))
    child = lifecycle.adopt(child, child.timeouts, replace(POLICY, budget=2))
    lifecycle.check(child)
    assert crash(child, NOW + 1)[0].state is State.QUARANTINED


def test_a_longer_patience_holds_before_the_next_beat():
    """When a reload made beat_s longer, the timer that was set before does not kill."""
    child = make_child(State.READY)
    child = lifecycle.adopt(child, replace(child.timeouts, beat_s=9.0), child.restarts_policy)
    child, effects = step(child, TimePassed(), NOW + 1)
    assert (child.state, effects, child.deadline) == (State.READY, (), NOW + 9 / 2)


NOT_INSTALLED = "ModuleNotFoundError: No module named 'trtd'"


def test_a_child_that_can_never_start_is_tried_once():
    """Ended before its hello with a reason that stays, or without an interpreter: suspended, and probed by nobody."""
    starting = make_child(State.STARTING)
    exited = Exited(GENERATION, ExitStatus(code=1), 0.5, NOT_INSTALLED)
    spawn_failed = SpawnFailed(GENERATION, "no such file", 0.5, is_permanent=True)
    for child, event in ((starting, exited), (replace(starting, pid=None, deadline=None), spawn_failed)):
        after, effects = step(child, event, NOW + 1)
        assert (after.state, after.deadline, effects) == (State.QUARANTINED, None, ())


@pytest.mark.parametrize("state", [State.WARMING, State.READY])
def test_old_words_say_nothing_about_a_later_end(state):
    """What a child wrote before its hello is no evidence once it has said it."""
    after, _ = step(make_child(state), Exited(GENERATION, ExitStatus(code=1), 0.5, NOT_INSTALLED), NOW + 1)
    assert after.last_fault.kind is FaultKind.EXITED
    assert after.state is State.STARTING
