"""Whatever events come in whatever order, the child stays sound, and the shell is never asked for nonsense."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.supervision import CLEAN, CRASH, NOW, PID, make_child, make_deaths, make_fault
from trtd.core import lifecycle
from trtd.core.faults import ExitStatus, FaultKind
from trtd.core.lifecycle import (
    EVENTS,
    TRANSITIONS,
    AskToStop,
    Beat,
    CloseGate,
    Exited,
    FaultReported,
    IllegalEvent,
    KillGroup,
    Moves,
    OpenGate,
    RevokeLeases,
    SetAside,
    Spawn,
    Spawned,
    SpawnFailed,
    State,
    TakeBack,
    Timeouts,
    TimePassed,
    step,
)
from trtd.core.lifecycle.child import silence, stall
from trtd.core.patience import Sight, ThreadSight
from trtd.core.restarts import RestartPolicy
from trtd.errors import Blame

POLICY = RestartPolicy(base_s=0.5, cap_s=4.0, healthy_after_s=5.0, budget=2, window_s=20.0, probe_after_s=10.0)
TIMEOUTS = Timeouts(
    hello_s=2.0, warmup_s=4.0, beat_s=1.0, progress_s=2.0, stopped_s=5.0, drain_s=3.0, stop_s=1.0, reap_s=1.0
)
STOPPED = Sight(True, {PID: ThreadSight(False, 1.0, 0.0)})
FRESH = make_child(State.STOPPED, timeouts=TIMEOUTS, restarts_policy=POLICY, generation=0, deadline=None)

WISHES = tuple(event for event in EVENTS if "Requested" in event.__name__)
STATUSES = (CRASH, CLEAN, ExitStatus(code=65), ExitStatus(code=75))
FAULTS = (
    make_fault(),
    make_fault(sticky=False),
    make_fault(FaultKind.BAD_MODEL, permanent=True),
    make_fault(blame=Blame.DEVICE),
)


def variants(event, generation):
    """Every event of a type that makes a difference."""
    if event in WISHES:
        return [event()]
    if event is TimePassed:
        return [TimePassed(), TimePassed(STOPPED)]
    if event is Spawned:
        return [Spawned(generation, PID)]
    if event is SpawnFailed:
        return [SpawnFailed(generation, "no memory", 0.5)]
    if event is Beat:
        return [Beat(generation, 1, 0), Beat(generation, 1, 1)]
    if event is FaultReported:
        return [FaultReported(generation, fault) for fault in FAULTS]
    if event is Exited:
        return [Exited(generation, status, 0.5) for status in STATUSES]
    return [event(generation)]


class ShellPromises:
    """What the shell may rely on; told every effect of one child in order."""

    def __init__(self):
        self.open_generation = None
        self.is_closed = False

    def watch(self, before, after, effects):
        for effect in effects:
            if isinstance(effect, IllegalEvent):
                assert after == before
            elif isinstance(effect, Spawn):
                assert self.open_generation is None, "a life ended with its leases"
                assert effect.generation == before.generation + 1
                assert after.pid is None
                assert before.pid is None or isinstance(effects[-1], Spawn)
            elif isinstance(effect, (KillGroup, AskToStop)):
                assert after.pid is not None, "there is a process to be ended"
                assert after.state is State.STOPPING
            elif isinstance(effect, OpenGate):
                assert self.open_generation is None
                self.open_generation, self.is_closed = effect.generation, False
            elif isinstance(effect, (SetAside, TakeBack)):
                assert effect.generation == self.open_generation
                assert before.is_set_aside is isinstance(effect, TakeBack)
                assert after.is_set_aside is isinstance(effect, SetAside)
            elif isinstance(effect, CloseGate):
                assert effect.generation == self.open_generation
                assert not self.is_closed
                self.is_closed = True
            elif isinstance(effect, RevokeLeases):
                assert effect.generation == self.open_generation, "leases are revoked once, of a life that had some"
                self.open_generation = None
        assert (self.open_generation is not None) == (after.state in lifecycle.IN_SERVICE)


def instants(child, event, now):
    """The moments at which an event may be told apart: now, at the next look, and when the child's patience ends."""
    if child.deadline is None or event is not TimePassed:
        return {now}
    ends = {child.deadline, silence(child).ends_at, child.since + TIMEOUTS.drain_s}
    if (stalled := stall(child)) is not None:
        ends.add(stalled.ends_at)
    return {now, *(max(now, at) for at in ends)}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_random_walks_keep_a_child_sound(data):
    """After any sequence of events, legal or not, check() holds and the effects make sense."""
    child, now, promises = FRESH, NOW, ShellPromises()
    for _ in range(data.draw(st.integers(1, 60))):
        event = data.draw(st.sampled_from(EVENTS))
        age = data.draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1]))
        chosen = data.draw(st.sampled_from(variants(event, child.generation - age)))
        if event is TimePassed and child.deadline is not None and data.draw(st.booleans()):
            now = max(now, child.deadline)
        else:
            now += data.draw(st.sampled_from([0.0, 0.1, 0.9, 6.0]))
        after, effects = step(child, chosen, now)
        lifecycle.check(after)
        promises.watch(child, after, effects)
        assert after.generation >= child.generation
        child = after


def essence(child, now):
    """The child without instants and counters that do not decide anything, so that equal situations meet."""
    return (
        child.state,
        child.desired,
        child.pid is None,
        child.restarting,
        child.is_killed,
        child.is_excused,
        child.is_probing,
        child.fault and (child.fault.kind, child.fault.permanent, child.fault.is_charged),
        child.in_flight,
        child.stopped_since is None,
        child.is_set_aside,
        min(child.failures, 3),
        max(len(child.deaths), len(child.device_deaths)),
        None if child.deadline is None else child.deadline <= now,
    )


@pytest.fixture(scope="module")
def explored():
    """Every situation that a child can be in: the moves seen, and how many situations there are."""
    moves, seen = {}, {essence(FRESH, NOW)}
    frontier = [(FRESH, NOW)]
    while frontier:
        child, now = frontier.pop()
        for event in EVENTS:
            for chosen in variants(event, child.generation):
                for at in instants(child, event, now):
                    after, _ = step(child, chosen, at)
                    moves.setdefault((child.state, event), set()).add(after.state)
                    if (found := essence(after, at)) not in seen:
                        lifecycle.check(after)
                        seen.add(found)
                        frontier.append((after, at))
    return moves, len(seen)


def test_every_situation_is_sound(explored):
    """Exploring every event in every situation breaks no promise, and there are many situations."""
    assert explored[1] > 500


def test_the_table_names_exactly_the_states_that_can_be_reached(explored):
    """Each target beside a handler is reached in some situation, and nothing else is."""
    moves, _ = explored
    for (state, event), cell in TRANSITIONS.items():
        reached = moves[state, event]
        if isinstance(cell, Moves):
            assert reached - {state} == set(cell.targets) - {state}, (state, event)
        else:
            assert reached == {state}, (state, event)


def test_check_finds_what_is_wrong():
    """A child that breaks a promise is found, and the text names the promise."""
    with pytest.raises(AssertionError, match="only a state without process has none"):
        lifecycle.check(replace(make_child(State.READY), pid=None))
    with pytest.raises(AssertionError, match="the death tallies are in order"):
        lifecycle.check(replace(make_child(State.READY), deaths=make_deaths(2.0, 1.0)))
