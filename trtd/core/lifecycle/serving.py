"""Handlers of children that may hold leases: life signs, patience, and the ways out of service that lose nothing."""

from __future__ import annotations

from dataclasses import replace

from trtd.core.faults import Fault, FaultKind
from trtd.core.lifecycle.child import Child, look, silence, stall, wait_for_patience
from trtd.core.lifecycle.common import OUT_OF_SERVICE, Outcome, enter, settle_health
from trtd.core.lifecycle.ending import fault_of_stop, give_up, kill, requested_fault
from trtd.core.lifecycle.vocabulary import (
    AskToStop,
    Beat,
    CloseGate,
    Desired,
    Effect,
    Event,
    RevokeLeases,
    SetAside,
    State,
    TakeBack,
    TimePassed,
)


def beat(child: Child, event: Beat, now: float) -> Outcome:
    """Note the life sign; the clock of progress runs only while work is in flight."""
    moved = event.progress != child.progress or not child.in_flight or not event.in_flight
    alive = replace(
        child,
        beat_at=now,
        beat_excused_s=0.0,
        is_resting=event.is_resting,
        progress=event.progress,
        progress_at=now if moved else child.progress_at,
        progress_excused_s=0.0 if moved else child.progress_excused_s,
        in_flight=event.in_flight,
        sight=child.sight if child.stopped_since is None else None,
        stopped_since=None,
        is_set_aside=False,
    )
    return wait_for_patience(alive), (TakeBack(child.generation),) if child.is_set_aside else ()


def expect_beat(child: Child, _event: Event, now: float) -> Outcome:
    """It was asked for a life sign, so it has as long as one that works."""
    if not child.is_resting:
        return child, ()
    return wait_for_patience(replace(child, is_resting=False, beat_at=now, beat_excused_s=0.0)), ()


def drain_to_restart(child: Child, event: Event, now: float) -> Outcome:
    """Let it finish what it holds; a start follows."""
    draining = enter(child, event, now, State.DRAINING, restarting=True)
    return wait_for_patience(draining), (CloseGate(child.generation),)


def drain_to_stop(child: Child, event: Event, now: float) -> Outcome:
    """Let it finish what it holds; nothing follows."""
    draining = enter(child, event, now, State.DRAINING, desired=Desired.DOWN)
    return wait_for_patience(draining), (CloseGate(child.generation),)


def end_service(child: Child, event: Event, now: float) -> Outcome:
    """Ask a serving child to stop; whatever it still holds goes to others."""
    stopping = enter(child, event, now, State.STOPPING, deadline=now + child.timeouts.stop_s, **OUT_OF_SERVICE)
    return settle_health(stopping, now), (
        RevokeLeases(child.generation, requested_fault(child)),
        AskToStop(child.generation),
    )


def stop_service(child: Child, event: Event, now: float) -> Outcome:
    """Ask a serving child to stop for good."""
    return end_service(give_up(child), event, now)


def check_patience(child: Child, event: TimePassed, now: float) -> Outcome:
    """End the service of a child that is silent, stalled, or does not finish what it holds.

    One that is stopped by a signal is not hung; what it holds goes to others once its silence is as long as a hung
    one's may be.
    """
    child = look(child, event.sight, now)
    if (fault := fault_of_stop(child, now)) is not None:
        return kill(child, event, now, fault)
    if now >= silence(child).ends_at:
        fault = Fault(FaultKind.BEAT_MISSED, f"gave no life sign for {now - child.beat_at:.3g} s")
        return kill(child, event, now, fault)
    stalled = stall(child)
    if stalled is not None and now >= stalled.ends_at:
        message = f"completed nothing for {now - child.progress_at:.3g} s with work in flight"
        return kill(child, event, now, Fault(FaultKind.PROGRESS_STALLED, message))
    if child.state is State.DRAINING and now >= child.since + child.timeouts.drain_s:
        return end_service(child, event, now)
    effects: tuple[Effect, ...] = ()
    stopped_since = child.stopped_since
    if stopped_since is not None and not child.is_set_aside and now >= stopped_since + child.timeouts.beat_s:
        child = replace(child, is_set_aside=True)
        effects = (SetAside(child.generation),)
    return wait_for_patience(child), effects
