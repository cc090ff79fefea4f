"""Handlers of children that may hold leases: life signs, patience, and the ways out of service that lose nothing."""

from __future__ import annotations

from dataclasses import replace

from trtd.core.faults import Fault, FaultKind
from trtd.core.lifecycle.child import Child, patience_ends, wait_for_patience
from trtd.core.lifecycle.common import Outcome, enter, settle_health
from trtd.core.lifecycle.ending import give_up, kill, requested_fault
from trtd.core.lifecycle.vocabulary import AskToStop, Beat, CloseGate, Desired, Event, RevokeLeases, State


def beat(child: Child, event: Beat, now: float) -> Outcome:
    """Note the life sign; the clock of progress runs only while work is in flight."""
    moved = event.progress != child.progress or not child.in_flight or not event.in_flight
    progress_at = now if moved else child.progress_at
    alive = replace(
        child,
        beat_at=now,
        progress=event.progress,
        progress_at=progress_at,
        in_flight=event.in_flight,
        deadline=patience_ends(child, beat_at=now, progress_at=progress_at, in_flight=event.in_flight),
    )
    return alive, ()


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
    stopping = enter(child, event, now, State.STOPPING, deadline=now + child.timeouts.stop_s)
    return settle_health(stopping, now), (
        RevokeLeases(child.generation, requested_fault(child)),
        AskToStop(child.generation),
    )


def stop_service(child: Child, event: Event, now: float) -> Outcome:
    """Ask a serving child to stop for good."""
    return end_service(give_up(child), event, now)


def check_patience(child: Child, event: Event, now: float) -> Outcome:
    """End the service of a child that is silent, stalled, or does not finish what it holds."""
    timeouts = child.timeouts
    if now >= child.beat_at + timeouts.beat_s:
        fault = Fault(FaultKind.BEAT_MISSED, f"gave no life sign for {now - child.beat_at:.3g} s")
        return kill(child, event, now, fault)
    if child.in_flight and now >= child.progress_at + timeouts.progress_s:
        message = f"completed nothing for {now - child.progress_at:.3g} s with work in flight"
        return kill(child, event, now, Fault(FaultKind.PROGRESS_STALLED, message))
    if child.state is State.DRAINING and now >= child.since + timeouts.drain_s:
        return end_service(child, event, now)
    # A reload made a timeout longer: look again when patience really ends.
    return wait_for_patience(child), ()
