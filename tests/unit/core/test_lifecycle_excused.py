"""Deaths that a client's input caused: charged to nobody, whether the word comes before, with or after the charge."""

from __future__ import annotations

import pytest

from tests.support.supervision import CRASH, GENERATION, NOW, PID, make_child, make_deaths, make_fault
from trtd.core import lifecycle
from trtd.core.faults import ExitStatus, FaultKind
from trtd.core.lifecycle import (
    BecameReady,
    DeathExcused,
    Exited,
    FaultReported,
    Greeted,
    IllegalEvent,
    Spawn,
    Spawned,
    State,
    TimePassed,
    step,
)
from trtd.core.restarts import Death, RestartPolicy
from trtd.errors import Blame

POLICY = RestartPolicy(base_s=1.0, cap_s=8.0, jitter=0.0, healthy_after_s=60.0, budget=2, window_s=100.0)
KILLED = ExitStatus(signal=9)


def excuse(child, life, now=NOW + 1):
    child, effects = step(child, DeathExcused(life), now)
    lifecycle.check(child)
    return child, effects


def crash(child, now):
    child, effects = step(child, Exited(child.generation, CRASH, 0.5), now)
    lifecycle.check(child)
    return child, effects


def live(child, now):
    """From STARTING to READY."""
    for event in (Spawned(child.generation, PID), Greeted(child.generation), BecameReady(child.generation)):
        child, _ = step(child, event, now)
    return child


def test_a_death_is_excused_before_the_process_is_gone():
    """A hang is convicted while its killed process is not reaped yet: then nobody is charged, and it restarts."""
    child = make_child(State.READY, restarts_policy=POLICY)
    child, _ = step(child, FaultReported(GENERATION, make_fault(FaultKind.STICKY_ERROR)), NOW)
    child, effects = excuse(child, GENERATION)
    assert (child.is_excused, effects) == (True, ())
    child, effects = step(child, Exited(GENERATION, KILLED, 0.5), NOW + 2)
    assert effects == (Spawn(GENERATION + 1),)
    assert (child.state, child.deaths, child.failures, child.is_excused) == (State.STARTING, (), 0, False)
    assert child.last_fault.blame is Blame.CLIENT


def test_last_words_do_not_undo_an_excuse():
    """What the process still says of itself, after the router said whose input it was, is not charged either."""
    child = make_child(State.READY, restarts_policy=POLICY)
    child, _ = step(child, FaultReported(GENERATION, make_fault()), NOW)
    child, _ = excuse(child, GENERATION)
    child, _ = step(child, FaultReported(GENERATION, make_fault(FaultKind.OUT_OF_MEMORY)), NOW + 1)
    child, _ = step(child, Exited(GENERATION, KILLED, 0.5), NOW + 2)
    assert child.deaths == ()


def test_a_death_is_excused_after_it_was_charged():
    """A conviction needs a second death; the first one, charged long ago, is taken back with it."""
    child, _ = crash(make_child(State.READY, restarts_policy=POLICY), NOW)
    child = live(child, NOW)
    assert (child.deaths, child.failures) == ((Death(NOW, GENERATION),), 1)
    child, effects = excuse(child, GENERATION)
    assert (child.state, child.deaths, child.failures, effects) == (State.READY, (), 0, ())


def test_the_same_death_is_excused_once():
    """Told again, or told of a life whose death was never charged, nothing changes."""
    child, _ = crash(make_child(State.READY, restarts_policy=POLICY, failures=3), NOW)
    child, _ = excuse(child, GENERATION)
    again, effects = excuse(child, GENERATION)
    assert (again, effects) == (child, ())
    assert excuse(child, GENERATION - 1) == (child, ())


def test_a_wait_is_shortened():
    """A child that waits to be started because of excused deaths waits as long as it would have without them."""
    child, _ = crash(make_child(State.READY, restarts_policy=POLICY, failures=2), NOW)
    assert (child.state, child.deadline) == (State.BACKOFF, NOW + 2.0)
    child, effects = excuse(child, GENERATION, NOW + 0.5)
    assert (child.state, child.deadline, effects) == (State.BACKOFF, NOW + 1.0, ())
    alone, _ = crash(make_child(State.READY, restarts_policy=POLICY, failures=1), NOW)
    alone, effects = excuse(alone, GENERATION, NOW + 0.5)
    assert (alone.state, effects) == (State.STARTING, (Spawn(GENERATION + 1),))


def test_a_suspension_ends_when_the_budget_holds_again():
    """A child suspended for a death that turns out to be a client's starts at once; its other deaths still count."""
    earlier = make_deaths(NOW - 2, NOW - 1)
    child, _ = crash(make_child(State.READY, restarts_policy=POLICY, deaths=earlier), NOW)
    assert child.state is State.QUARANTINED
    child, effects = excuse(child, GENERATION)
    assert (child.state, effects, child.deaths) == (State.STARTING, (Spawn(GENERATION + 1),), earlier)


@pytest.mark.parametrize("case", ["an ill device", "permanent", "another life"])
def test_a_suspension_for_other_reasons_stays(case):
    """Excusing one death lifts no suspension that something else suffices for."""
    over = make_deaths(NOW - 3, NOW - 2, NOW - 1)
    changes = {
        "an ill device": {"deaths": (Death(NOW, GENERATION),), "device_deaths": over},
        "permanent": {
            "deaths": (Death(NOW, GENERATION),),
            "fault": make_fault(FaultKind.BAD_MODEL, permanent=True),
            "deadline": None,
        },
        "another life": {"deaths": over},
    }[case]
    child = make_child(State.QUARANTINED, **{"restarts_policy": POLICY, **changes})
    child, effects = excuse(child, GENERATION)
    assert (child.state, effects) == (State.QUARANTINED, ())


def test_a_probe_that_a_client_ended_is_tried_again():
    """The one try of a suspended child does not fail because of poison; it is still on probation."""
    child = make_child(State.QUARANTINED, restarts_policy=POLICY, deadline=NOW + 60.0)
    child, _ = step(child, TimePassed(), NOW + 60.0)
    child, _ = crash(live(child, NOW + 60.0), NOW + 61.0)
    assert child.state is State.QUARANTINED
    child, _ = excuse(child, child.generation, NOW + 61.5)
    assert (child.state, child.is_probing) == (State.STARTING, True)


@pytest.mark.parametrize("state", [State.STARTING, State.WARMING, State.READY, State.DRAINING])
def test_a_life_that_goes_on_cannot_be_excused(state):
    """The router cannot know of the end of a process that lives; nor of one that was never started."""
    child = make_child(state)
    for life in (GENERATION, GENERATION + 1):
        after, (effect,) = excuse(child, life)
        assert after is child
        assert isinstance(effect, IllegalEvent)


def test_many_excused_deaths_never_suspend():
    """However many workers a client's inputs end, as long as each is excused, the child is started at once again."""
    child = make_child(State.READY, restarts_policy=POLICY)
    for number in range(50):
        now = NOW + number
        child, _ = crash(child, now)
        child, _ = excuse(child, child.generation if child.state is not State.STARTING else child.generation - 1, now)
        assert child.state is State.STARTING
        child = live(child, now)
    assert (child.deaths, child.failures) == ((), 0)


def test_nothing_is_permanent_after_ready():
    """A process that was ready had good files: an exit code that says otherwise came from what it ran."""
    child, _ = step(make_child(State.READY), Exited(GENERATION, ExitStatus(code=65), 0.5), NOW + 0.5)
    assert (child.state, child.last_fault.permanent) == (State.STARTING, False)
    child, _ = step(make_child(State.WARMING), Exited(GENERATION, ExitStatus(code=65), 0.5), NOW + 0.5)
    assert (child.state, child.last_fault.permanent) == (State.QUARANTINED, True)
