"""The table: what each event does in each state, every pair decided; and `step`, which looks it up.

A pair moves (a handler decides; the states that it can lead to stand beside it, and the child may stay), is ignored
(late or repeated: nothing to do) or is illegal (it cannot happen: it is reported and changes nothing). Events of an
older generation are late frames and ignored in every state.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trtd.core.lifecycle import common, ending, serving, starting
from trtd.core.lifecycle.child import Child
from trtd.core.lifecycle.vocabulary import (
    Beat,
    BeatAsked,
    BecameReady,
    DeathExcused,
    DrainRequested,
    Effect,
    Emptied,
    Event,
    Exited,
    FaultReported,
    Greeted,
    KillRequested,
    RestartRequested,
    Spawned,
    SpawnFailed,
    SpawnWithdrawn,
    StartRequested,
    State,
    StopRequested,
    TimePassed,
)


class Pass(Enum):
    """Cells in which nothing happens."""

    IGNORED = "ignored"
    ILLEGAL = "illegal"


@dataclass(frozen=True, slots=True)
class Moves:
    """A cell in which a handler decides.

    Attributes:
        handler: see `trtd.core.lifecycle.common`.
        targets: states that it can lead to; empty when the child stays.
    """

    handler: common.Handler
    targets: tuple[State, ...] = ()


Cell = Moves | Pass

IGNORED = Pass.IGNORED
ILLEGAL = Pass.ILLEGAL

STOPPED = State.STOPPED
STARTING = State.STARTING
WARMING = State.WARMING
READY = State.READY
DRAINING = State.DRAINING
STOPPING = State.STOPPING
BACKOFF = State.BACKOFF
QUARANTINED = State.QUARANTINED
STUCK = State.STUCK

EVENTS: tuple[type[Event], ...] = (
    StartRequested,
    StopRequested,
    DrainRequested,
    KillRequested,
    RestartRequested,
    Spawned,
    SpawnFailed,
    SpawnWithdrawn,
    Greeted,
    BecameReady,
    Beat,
    BeatAsked,
    FaultReported,
    DeathExcused,
    Emptied,
    Exited,
    TimePassed,
)

ROWS: dict[State, dict[type[Event], Cell]] = {
    STOPPED: {
        StartRequested: Moves(starting.start_afresh, (STARTING,)),
        StopRequested: IGNORED,
        DrainRequested: IGNORED,
        KillRequested: IGNORED,
        RestartRequested: IGNORED,
        Spawned: ILLEGAL,
        SpawnFailed: ILLEGAL,
        SpawnWithdrawn: ILLEGAL,
        Greeted: IGNORED,
        BecameReady: IGNORED,
        Beat: IGNORED,
        BeatAsked: IGNORED,
        FaultReported: IGNORED,
        DeathExcused: IGNORED,
        Emptied: IGNORED,
        Exited: ILLEGAL,
        TimePassed: IGNORED,
    },
    STARTING: {
        StartRequested: IGNORED,
        StopRequested: Moves(ending.kill_to_stop, (STOPPING,)),
        DrainRequested: Moves(ending.kill_to_stop, (STOPPING,)),
        KillRequested: Moves(ending.kill_to_stop, (STOPPING,)),
        RestartRequested: Moves(ending.kill_to_restart, (STOPPING,)),
        Spawned: Moves(starting.spawned),
        SpawnFailed: Moves(ending.spawn_failed, (STARTING, BACKOFF, QUARANTINED)),
        SpawnWithdrawn: ILLEGAL,
        Greeted: Moves(starting.greeted, (WARMING,)),
        BecameReady: ILLEGAL,
        Beat: ILLEGAL,
        BeatAsked: IGNORED,
        FaultReported: Moves(ending.kill_for_fault, (STOPPING,)),
        DeathExcused: Moves(ending.excuse),
        Emptied: ILLEGAL,
        Exited: Moves(ending.exited, (STARTING, BACKOFF, QUARANTINED)),
        TimePassed: Moves(ending.check_slow_start, (STOPPING,)),
    },
    WARMING: {
        StartRequested: IGNORED,
        StopRequested: Moves(ending.kill_to_stop, (STOPPING,)),
        DrainRequested: Moves(ending.kill_to_stop, (STOPPING,)),
        KillRequested: Moves(ending.kill_to_stop, (STOPPING,)),
        RestartRequested: Moves(ending.kill_to_restart, (STOPPING,)),
        Spawned: ILLEGAL,
        SpawnFailed: ILLEGAL,
        SpawnWithdrawn: ILLEGAL,
        Greeted: ILLEGAL,
        BecameReady: Moves(starting.become_ready, (READY,)),
        # Loading a model may hold the interpreter, so silence means nothing yet, and nor does a beat.
        Beat: IGNORED,
        BeatAsked: IGNORED,
        FaultReported: Moves(ending.kill_for_fault, (STOPPING,)),
        DeathExcused: Moves(ending.excuse),
        Emptied: ILLEGAL,
        Exited: Moves(ending.exited, (STARTING, BACKOFF, QUARANTINED)),
        TimePassed: Moves(ending.check_slow_start, (STOPPING,)),
    },
    READY: {
        StartRequested: IGNORED,
        StopRequested: Moves(serving.stop_service, (STOPPING,)),
        DrainRequested: Moves(serving.drain_to_stop, (DRAINING,)),
        KillRequested: Moves(ending.kill_to_stop, (STOPPING,)),
        RestartRequested: Moves(serving.drain_to_restart, (DRAINING,)),
        Spawned: ILLEGAL,
        SpawnFailed: ILLEGAL,
        SpawnWithdrawn: ILLEGAL,
        Greeted: ILLEGAL,
        BecameReady: ILLEGAL,
        Beat: Moves(serving.beat),
        BeatAsked: Moves(serving.expect_beat),
        FaultReported: Moves(ending.kill_for_fault, (STOPPING,)),
        DeathExcused: Moves(ending.excuse),
        Emptied: ILLEGAL,
        Exited: Moves(ending.exited, (STARTING, BACKOFF, QUARANTINED)),
        TimePassed: Moves(serving.check_patience, (STOPPING,)),
    },
    DRAINING: {
        StartRequested: Moves(ending.want_again),
        StopRequested: Moves(serving.stop_service, (STOPPING,)),
        DrainRequested: Moves(ending.want_no_more),
        KillRequested: Moves(ending.kill_to_stop, (STOPPING,)),
        RestartRequested: IGNORED,
        Spawned: ILLEGAL,
        SpawnFailed: ILLEGAL,
        SpawnWithdrawn: ILLEGAL,
        Greeted: ILLEGAL,
        BecameReady: ILLEGAL,
        Beat: Moves(serving.beat),
        BeatAsked: Moves(serving.expect_beat),
        FaultReported: Moves(ending.kill_for_fault, (STOPPING,)),
        DeathExcused: Moves(ending.excuse),
        Emptied: Moves(serving.end_service, (STOPPING,)),
        Exited: Moves(ending.exited, (STOPPED, STARTING, BACKOFF, QUARANTINED)),
        TimePassed: Moves(serving.check_patience, (STOPPING,)),
    },
    STOPPING: {
        StartRequested: Moves(ending.want_again),
        StopRequested: Moves(ending.want_no_more),
        DrainRequested: Moves(ending.want_no_more),
        KillRequested: Moves(ending.kill_stopping),
        RestartRequested: Moves(ending.restart_once_gone),
        Spawned: Moves(starting.spawned_too_late),
        SpawnFailed: Moves(ending.spawn_failed, (STOPPED, STARTING)),
        SpawnWithdrawn: Moves(ending.spawn_withdrawn, (STOPPED, STARTING)),
        Greeted: IGNORED,
        BecameReady: IGNORED,
        Beat: IGNORED,
        BeatAsked: IGNORED,
        FaultReported: Moves(ending.note_fault),
        DeathExcused: Moves(ending.excuse),
        Emptied: IGNORED,
        Exited: Moves(ending.exited_as_asked, (STOPPED, STARTING, BACKOFF, QUARANTINED)),
        TimePassed: Moves(ending.lose_patience_with_stop, (STUCK,)),
    },
    BACKOFF: {
        StartRequested: Moves(starting.start_afresh, (STARTING,)),
        StopRequested: Moves(ending.stop_waiting, (STOPPED,)),
        DrainRequested: Moves(ending.stop_waiting, (STOPPED,)),
        KillRequested: Moves(ending.stop_waiting, (STOPPED,)),
        RestartRequested: Moves(starting.start_afresh, (STARTING,)),
        Spawned: ILLEGAL,
        SpawnFailed: ILLEGAL,
        SpawnWithdrawn: ILLEGAL,
        Greeted: IGNORED,
        BecameReady: IGNORED,
        Beat: IGNORED,
        BeatAsked: IGNORED,
        FaultReported: IGNORED,
        DeathExcused: Moves(ending.excuse_waiting, (STARTING,)),
        Emptied: IGNORED,
        Exited: ILLEGAL,
        TimePassed: Moves(starting.start_after_backoff, (STARTING,)),
    },
    QUARANTINED: {
        StartRequested: Moves(starting.start_afresh, (STARTING,)),
        StopRequested: Moves(ending.stop_waiting, (STOPPED,)),
        DrainRequested: Moves(ending.stop_waiting, (STOPPED,)),
        KillRequested: Moves(ending.stop_waiting, (STOPPED,)),
        RestartRequested: Moves(starting.start_afresh, (STARTING,)),
        Spawned: ILLEGAL,
        SpawnFailed: ILLEGAL,
        SpawnWithdrawn: ILLEGAL,
        Greeted: IGNORED,
        BecameReady: IGNORED,
        Beat: IGNORED,
        BeatAsked: IGNORED,
        FaultReported: IGNORED,
        DeathExcused: Moves(ending.excuse_suspended, (STARTING,)),
        Emptied: IGNORED,
        Exited: ILLEGAL,
        TimePassed: Moves(starting.probe, (STARTING,)),
    },
    # The kernel has not let go of a killed process: only its end leads out, whatever is wanted meanwhile.
    STUCK: {
        StartRequested: Moves(ending.want_again),
        StopRequested: Moves(ending.want_no_more),
        DrainRequested: Moves(ending.want_no_more),
        KillRequested: Moves(ending.want_no_more),
        RestartRequested: Moves(ending.restart_once_gone),
        Spawned: ILLEGAL,
        SpawnFailed: ILLEGAL,
        SpawnWithdrawn: ILLEGAL,
        Greeted: IGNORED,
        BecameReady: IGNORED,
        Beat: IGNORED,
        BeatAsked: IGNORED,
        FaultReported: Moves(ending.note_fault),
        DeathExcused: Moves(ending.excuse),
        Emptied: IGNORED,
        Exited: Moves(ending.exited_as_asked, (STOPPED, STARTING, BACKOFF, QUARANTINED)),
        TimePassed: IGNORED,
    },
}

TRANSITIONS: dict[tuple[State, type[Event]], Cell] = {
    (state, event): cell for state, row in ROWS.items() for event, cell in row.items()
}
"""(state, event type) -> cell; a test holds it complete."""


def step(child: Child, event: Event, now: float) -> tuple[Child, tuple[Effect, ...]]:
    """The child after an event, and what the shell shall do about it, in order.

    Args:
        child: as it is.
        event: what happened.
        now: instant at which it happened, in monotonic seconds; never smaller than at an earlier step.
    """
    cell = TRANSITIONS[child.state, type(event)]
    generation = getattr(event, "generation", child.generation)
    if generation < child.generation or cell is Pass.IGNORED:
        return child, ()
    if isinstance(event, TimePassed) and (child.deadline is None or now < child.deadline):
        return child, ()
    if generation > child.generation or cell is Pass.ILLEGAL:
        return common.refuse(child, event, now)
    return cell.handler(child, event, now)
