"""Own time, what the kernel says of a silent process, and what a child in service makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.supervision import GENERATION, NOW, make_child
from trtd.core import lifecycle
from trtd.core.faults import FaultKind
from trtd.core.lifecycle import Beat, BeatAsked, KillGroup, RevokeLeases, SetAside, State, TakeBack, TimePassed, step
from trtd.core.patience import MOST_WAITS, SLACK_S, OwnTime, Sight, ThreadSight, waited_s

STOPPED = Sight(True, {1: ThreadSight(False, 1.0, 0.0)})


def asleep(ran_s: float = 1.0) -> Sight:
    """A process that waits for something else than a processor."""
    return Sight(False, {1: ThreadSight(False, ran_s, 0.0)})


def queued(waited_s: float, ran_s: float = 1.0) -> Sight:
    """A process that wants a processor, and has waited so long before."""
    return Sight(False, {1: ThreadSight(True, ran_s, waited_s)})


def test_own_time_leaves_out_what_nobody_expected():
    """A wake-up that is late by more than the slack costs no own time, one within it does."""
    own = OwnTime()
    own.expect(10.0)
    assert own.read(10.0 + SLACK_S / 2) == 10.0 + SLACK_S / 2
    own.expect(11.0)
    assert own.read(41.0) == 11.0
    own.expect(42.0)
    assert own.read(42.0) == 12.0
    assert own.lost_s == 30.0


def test_own_time_never_goes_back():
    """Whatever is late by whatever little, a later reading is no smaller."""
    own, now, last = OwnTime(), 0.0, 0.0
    for number in range(2000):
        now += 0.001 * (number * 7 % 31)
        if number % 3 == 0:
            own.expect(now + 0.001 * (number % 11))
        value = own.read(now)
        assert value >= last
        last = value


@pytest.mark.parametrize(
    ("before", "after", "waited"),
    [
        (queued(0.0), queued(0.0), 1.0),
        (queued(0.0), queued(0.3, ran_s=1.7), 0.3),
        (asleep(), asleep(), 0.0),
        (asleep(), Sight(False, {2: ThreadSight(True, 0.0, 0.0)}), 0.0),
        (queued(0.0), queued(9.0, ran_s=1.1), 1.0),
    ],
    ids=["never ran", "ran and waited", "slept", "another thread", "more than there was"],
)
def test_waiting_is_what_the_kernel_says(before, after, waited):
    """A thread that wants a processor and did not run waited all the time; one that ran, as long as was counted."""
    assert waited_s(before, after, 1.0) == pytest.approx(waited)


def serving(**timeouts):
    """A child in service that gave a life sign at NOW."""
    child = make_child()
    child = replace(child, timeouts=replace(child.timeouts, **timeouts))
    return step(child, Beat(GENERATION, 0, 0), NOW)[0]


def silent(child, sight_at, until):
    """Let a child be silent until an instant, looked at whenever it wants to be."""
    effects = []
    while child.state in lifecycle.IN_SERVICE and child.deadline is not None and child.deadline <= until:
        at = child.deadline
        child, done = step(child, TimePassed(sight_at(at)), at)
        lifecycle.check(child)
        effects += [(at, effect) for effect in done]
    return child, effects


def test_a_child_that_sleeps_is_hung_at_its_bound():
    """With processors to spare a silent child is killed after beat_s and not a moment later."""
    child, effects = silent(serving(), lambda _: asleep(), NOW + 10)
    assert [(at, type(effect)) for at, effect in effects] == [(NOW + 1.0, RevokeLeases), (NOW + 1.0, KillGroup)]
    assert child.fault.kind is FaultKind.BEAT_MISSED


def test_a_child_that_gets_no_processor_is_not_hung():
    """One that never runs is excused for some patiences, and found all the same in the end."""
    child, effects = silent(serving(), lambda _: queued(0.0), NOW + 3.9)
    assert (child.state, effects) == (State.READY, [])
    after, _ = step(child, Beat(GENERATION, 1, 0), NOW + 3.9)
    assert (after.beat_excused_s, after.deadline) == (0.0, NOW + 3.9 + 0.5)
    _, effects = silent(child, lambda _: queued(0.0), NOW + 100)
    killed_at = effects[0][0]
    assert NOW + MOST_WAITS <= killed_at <= NOW + MOST_WAITS + 1.0


def test_a_child_that_gets_half_a_processor_has_twice_the_time():
    """What it waited is excused, what it ran or slept is not."""
    _, effects = silent(serving(), lambda at: queued((at - NOW) / 2, ran_s=at), NOW + 100)
    # The first look, after half of the patience, has nothing to compare with.
    assert effects[0][0] == pytest.approx(NOW + 1.5, abs=0.26)


def test_a_stopped_child_is_set_aside_and_comes_back():
    """After beat_s what it holds goes to others; it is not killed, and its next beat takes it back."""
    child, effects = silent(serving(), lambda _: STOPPED, NOW + 30)
    assert effects == [(NOW + 1.0, SetAside(GENERATION))]
    child, effects = step(child, Beat(GENERATION, 1, 0), NOW + 30)
    assert effects == (TakeBack(GENERATION),)
    assert not child.is_set_aside
    _, effects = silent(child, lambda _: asleep(), NOW + 40)
    assert effects[0][0] == NOW + 31.0


def test_a_child_that_goes_on_and_stays_silent_is_hung():
    """Once it is let go on, it has its whole patience, and no more than that and a look."""
    _, effects = silent(serving(), lambda at: STOPPED if at < NOW + 10 else asleep(), NOW + 100)
    assert isinstance(effects[0][1], SetAside)
    assert NOW + 10.0 < effects[1][0] <= NOW + 11.3
    assert isinstance(effects[1][1], RevokeLeases)


def test_a_child_that_stays_stopped_is_replaced():
    """After stopped_s it is killed, whoever stopped it; with 0 it never is."""
    _, effects = silent(serving(), lambda _: STOPPED, NOW + 100)
    killed_at, revoke = effects[1]
    assert NOW + 60.0 <= killed_at <= NOW + 60.3
    assert revoke.fault.message == "was stopped by a signal for 60 s"
    child, effects = silent(serving(stopped_s=0.0), lambda _: STOPPED, NOW + 1000)
    assert [type(effect) for _, effect in effects] == [SetAside]
    assert child.state is State.READY


def test_a_stop_costs_no_progress():
    """Work in flight that stood still with its process has as long to complete as before."""
    child, _ = step(make_child(), Beat(GENERATION, 1, 1), NOW)
    child, _ = silent(child, lambda _: STOPPED, NOW + 29.0)
    child, _ = step(child, Beat(GENERATION, 1, 1), NOW + 29.1)
    assert child.progress_at == pytest.approx(NOW + 29.0, abs=0.3)


def test_a_stop_costs_no_start():
    """A child that is stopped while it starts has as long to start as before, until it was stopped for too long."""
    child = make_child(State.STARTING)
    child, effects = step(child, TimePassed(STOPPED), NOW + 20)
    assert (child.state, effects, child.stopped_since) == (State.STARTING, (), NOW + 20)
    assert child.deadline > NOW + 20
    child, _ = step(child, TimePassed(STOPPED), NOW + 80)
    assert (child.state, child.fault.kind) == (State.STOPPING, FaultKind.BEAT_MISSED)


def resting(at=NOW):
    """A child in service that said at an instant that it has nothing to do."""
    return step(make_child(), Beat(GENERATION, 0, 0, is_resting=True), at)[0]


def test_a_child_that_rests_may_be_silent_for_longer():
    """It is hung when its next beat is late by beat_s, and with its next beat it has no more time than others."""
    _, effects = silent(resting(), lambda _: asleep(), NOW + 100)
    assert effects[0][0] == NOW + 6.0
    child, _ = step(resting(), Beat(GENERATION, 0, 1), NOW + 3)
    _, effects = silent(child, lambda _: asleep(), NOW + 100)
    assert effects[0][0] == NOW + 4.0


def test_a_child_that_rests_and_is_asked_has_to_speak():
    """Once it was asked for a life sign it has beat_s; what it was asked for before does not count twice."""
    child, _ = step(resting(), BeatAsked(GENERATION), NOW + 2)
    child, effects = step(child, BeatAsked(GENERATION), NOW + 2.5)
    assert effects == ()
    _, effects = silent(child, lambda _: asleep(), NOW + 100)
    assert effects[0][0] == NOW + 3.0


def test_a_child_that_rests_and_is_stopped_is_set_aside():
    """It is noticed at the first look, and a stop that ends before costs nothing."""
    child, effects = silent(resting(), lambda _: STOPPED, NOW + 30)
    assert effects == [(NOW + 5.5, SetAside(GENERATION))]
    assert child.state is State.READY
