"""Every (state, event) cell of the lifecycle does what is decided here, told apart from the table itself."""

from __future__ import annotations

import pytest

from tests.support.supervision import GENERATION, NOW, PID, make_child, make_event
from trtd.core import lifecycle
from trtd.core.lifecycle import (
    EVENTS,
    TRANSITIONS,
    AskToStop,
    CloseGate,
    IllegalEvent,
    KillGroup,
    OpenGate,
    RevokeLeases,
    Spawn,
    Spawned,
    SpawnFailed,
    SpawnWithdrawn,
    State,
    TimePassed,
    step,
)

IGNORED, ILLEGAL = "ignored", "illegal"
NO_PROCESS_YET = {
    (state, event) for state in (State.STARTING, State.STOPPING) for event in (Spawned, SpawnFailed, SpawnWithdrawn)
}

# One line for each cell: what becomes of a typical child of that state, and the effects in order. The child of
# `draining` is to be restarted, that of `stopping` was asked to stop for good; `Exited` is a crash, and `TimePassed`
# comes at the deadline.
DECIDED = """
stopped      StartRequested    starting Spawn
stopped      StopRequested     ignored
stopped      DrainRequested    ignored
stopped      KillRequested     ignored
stopped      RestartRequested  ignored
stopped      Spawned           illegal
stopped      SpawnFailed       illegal
stopped      SpawnWithdrawn    illegal
stopped      Greeted           ignored
stopped      BecameReady       ignored
stopped      Beat              ignored
stopped      BeatAsked         ignored
stopped      FaultReported     ignored
stopped      DeathExcused      ignored
stopped      Emptied           ignored
stopped      Exited            illegal
stopped      TimePassed        ignored

starting     StartRequested    ignored
starting     StopRequested     stopping KillGroup
starting     DrainRequested    stopping KillGroup
starting     KillRequested     stopping KillGroup
starting     RestartRequested  stopping KillGroup
starting     Spawned           starting
starting     SpawnFailed       starting Spawn
starting     SpawnWithdrawn    illegal
starting     Greeted           warming
starting     BecameReady       illegal
starting     Beat              illegal
starting     BeatAsked         ignored
starting     FaultReported     stopping KillGroup
starting     DeathExcused      starting IllegalEvent
starting     Emptied           illegal
starting     Exited            starting Spawn
starting     TimePassed        stopping KillGroup

warming      StartRequested    ignored
warming      StopRequested     stopping KillGroup
warming      DrainRequested    stopping KillGroup
warming      KillRequested     stopping KillGroup
warming      RestartRequested  stopping KillGroup
warming      Spawned           illegal
warming      SpawnFailed       illegal
warming      SpawnWithdrawn    illegal
warming      Greeted           illegal
warming      BecameReady       ready OpenGate
warming      Beat              ignored
warming      BeatAsked         ignored
warming      FaultReported     stopping KillGroup
warming      DeathExcused      warming IllegalEvent
warming      Emptied           illegal
warming      Exited            starting Spawn
warming      TimePassed        stopping KillGroup

ready        StartRequested    ignored
ready        StopRequested     stopping RevokeLeases AskToStop
ready        DrainRequested    draining CloseGate
ready        KillRequested     stopping RevokeLeases KillGroup
ready        RestartRequested  draining CloseGate
ready        Spawned           illegal
ready        SpawnFailed       illegal
ready        SpawnWithdrawn    illegal
ready        Greeted           illegal
ready        BecameReady       illegal
ready        Beat              ready
ready        BeatAsked         ready
ready        FaultReported     stopping RevokeLeases KillGroup
ready        DeathExcused      ready IllegalEvent
ready        Emptied           illegal
ready        Exited            starting RevokeLeases Spawn
ready        TimePassed        stopping RevokeLeases KillGroup

draining     StartRequested    draining
draining     StopRequested     stopping RevokeLeases AskToStop
draining     DrainRequested    draining
draining     KillRequested     stopping RevokeLeases KillGroup
draining     RestartRequested  ignored
draining     Spawned           illegal
draining     SpawnFailed       illegal
draining     SpawnWithdrawn    illegal
draining     Greeted           illegal
draining     BecameReady       illegal
draining     Beat              draining
draining     BeatAsked         draining
draining     FaultReported     stopping RevokeLeases KillGroup
draining     DeathExcused      draining IllegalEvent
draining     Emptied           stopping RevokeLeases AskToStop
draining     Exited            starting RevokeLeases Spawn
draining     TimePassed        stopping RevokeLeases KillGroup

stopping     StartRequested    stopping
stopping     StopRequested     stopping
stopping     DrainRequested    stopping
stopping     KillRequested     stopping KillGroup
stopping     RestartRequested  stopping
stopping     Spawned           stopping KillGroup
stopping     SpawnFailed       stopped
stopping     SpawnWithdrawn    stopped
stopping     Greeted           ignored
stopping     BecameReady       ignored
stopping     Beat              ignored
stopping     BeatAsked         ignored
stopping     FaultReported     stopping
stopping     DeathExcused      stopping
stopping     Emptied           ignored
stopping     Exited            stopped
stopping     TimePassed        stopping KillGroup

backoff      StartRequested    starting Spawn
backoff      StopRequested     stopped
backoff      DrainRequested    stopped
backoff      KillRequested     stopped
backoff      RestartRequested  starting Spawn
backoff      Spawned           illegal
backoff      SpawnFailed       illegal
backoff      SpawnWithdrawn    illegal
backoff      Greeted           ignored
backoff      BecameReady       ignored
backoff      Beat              ignored
backoff      BeatAsked         ignored
backoff      FaultReported     ignored
backoff      DeathExcused      backoff
backoff      Emptied           ignored
backoff      Exited            illegal
backoff      TimePassed        starting Spawn

quarantined  StartRequested    starting Spawn
quarantined  StopRequested     stopped
quarantined  DrainRequested    stopped
quarantined  KillRequested     stopped
quarantined  RestartRequested  starting Spawn
quarantined  Spawned           illegal
quarantined  SpawnFailed       illegal
quarantined  SpawnWithdrawn    illegal
quarantined  Greeted           ignored
quarantined  BecameReady       ignored
quarantined  Beat              ignored
quarantined  BeatAsked         ignored
quarantined  FaultReported     ignored
quarantined  DeathExcused      quarantined
quarantined  Emptied           ignored
quarantined  Exited            illegal
quarantined  TimePassed        starting Spawn

stuck        StartRequested    stuck
stuck        StopRequested     stuck
stuck        DrainRequested    stuck
stuck        KillRequested     stuck
stuck        RestartRequested  stuck
stuck        Spawned           illegal
stuck        SpawnFailed       illegal
stuck        SpawnWithdrawn    illegal
stuck        Greeted           ignored
stuck        BecameReady       ignored
stuck        Beat              ignored
stuck        BeatAsked         ignored
stuck        FaultReported     stuck
stuck        DeathExcused      stuck
stuck        Emptied           ignored
stuck        Exited            starting Spawn
stuck        TimePassed        ignored
"""


def decided_cells():
    by_name = {event.__name__: event for event in EVENTS}
    for line in filter(None, DECIDED.splitlines()):
        state, event, outcome, *effects = line.split()
        yield State(state), by_name[event], outcome, effects


def typical_child(state, event):
    changes = {"pid": None, "deadline": None} if (state, event) in NO_PROCESS_YET else {}
    return make_child(state, **changes)


@pytest.mark.parametrize(
    ("state", "event", "outcome", "effects"),
    list(decided_cells()),
    ids=lambda value: str(value) if isinstance(value, State) else getattr(value, "__name__", ""),
)
def test_cell_behaves_as_decided(state, event, outcome, effects):
    """A typical child in the state, given the event, ends in the decided state with the decided effects."""
    child = typical_child(state, event)
    now = child.deadline if event is TimePassed and child.deadline is not None else NOW + 0.5
    after, done = step(child, make_event(event), now)
    lifecycle.check(after)
    names = [type(effect).__name__ for effect in done]
    if outcome == IGNORED:
        assert (after, names) == (child, [])
    elif outcome == ILLEGAL:
        assert (after, names) == (child, ["IllegalEvent"])
    else:
        assert (str(after.state), names) == (outcome, effects)


def test_every_cell_is_decided():
    """The table and the list above name each pair of a state and an event type exactly once."""
    pairs = [(state, event) for state, event, _, _ in decided_cells()]
    everything = {(state, event) for state in State for event in EVENTS}
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == everything
    assert set(TRANSITIONS) == everything
    assert set(EVENTS) == set(lifecycle.Event.__args__)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", [event for event in EVENTS if "generation" in event.__dataclass_fields__])
def test_late_frames_change_nothing(state, event):
    """An event of an earlier life is ignored in every state, also where it would be illegal from the present life."""
    child = make_child(state)
    assert step(child, make_event(event, generation=GENERATION - 1), NOW + 0.5) == (child, ())


@pytest.mark.parametrize("state", list(State))
def test_a_life_that_was_never_spawned_is_reported(state):
    """An event of a life yet to come is illegal in every state in which such an event is not ignored anyway."""
    child = make_child(state)
    after, effects = step(child, make_event(lifecycle.Exited, generation=GENERATION + 1), NOW + 0.5)
    assert after == child
    assert [type(effect) for effect in effects] == [IllegalEvent]


def test_an_illegal_event_tells_its_story():
    """The report of an illegal event names the event, the state and the states before it, in one line."""
    child, _ = step(make_child(State.STOPPED), lifecycle.StartRequested(), NOW)
    child, _ = step(child, Spawned(GENERATION + 1, PID), NOW)
    _, (report,) = step(child, make_event(lifecycle.BecameReady, GENERATION + 1), NOW)
    assert str(report) == "BecameReady(generation=4) cannot happen in starting (after starting)"


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.STARTING, lifecycle.Greeted),
        (State.STARTING, lifecycle.FaultReported),
        (State.STARTING, lifecycle.Exited),
        (State.STOPPING, lifecycle.Exited),
    ],
)
def test_words_of_a_process_that_does_not_exist_are_reported(state, event):
    """Before Spawned, nothing can have come from the process."""
    child = make_child(state, pid=None, deadline=None)
    assert step(child, make_event(event), NOW) == (child, (IllegalEvent(state, make_event(event), ()),))


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPING])
@pytest.mark.parametrize("event", [Spawned, SpawnFailed])
def test_one_outcome_for_each_spawn(state, event):
    """A second outcome of the same spawn is illegal."""
    child = make_child(state)
    assert step(child, make_event(event), NOW) == (child, (IllegalEvent(state, make_event(event), ()),))


@pytest.mark.parametrize("state", [state for state in State if make_child(state).deadline is not None])
def test_a_timer_that_comes_early_changes_nothing(state):
    """TimePassed before the deadline is a timer of an earlier moment."""
    child = make_child(state)
    assert step(child, TimePassed(), child.deadline - 0.001) == (child, ())


def test_effects_name_the_life_that_they_concern():
    """Each effect carries the generation, so that the shell cannot kill or admit a successor by mistake."""
    assert step(make_child(State.WARMING), make_event(lifecycle.BecameReady), NOW)[1] == (OpenGate(GENERATION),)
    ready = make_child(State.READY)
    assert step(ready, lifecycle.RestartRequested(), NOW)[1] == (CloseGate(GENERATION),)
    revoke, kill = step(ready, lifecycle.KillRequested(), NOW)[1]
    assert (revoke.generation, kill) == (GENERATION, KillGroup(GENERATION))
    assert isinstance(revoke, RevokeLeases)
    assert step(ready, lifecycle.StopRequested(), NOW)[1][1] == AskToStop(GENERATION)
    assert step(make_child(State.BACKOFF), lifecycle.StartRequested(), NOW)[1] == (Spawn(GENERATION + 1),)
