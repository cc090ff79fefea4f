"""What each decided cell of the table does: handlers from (child, event, now) to (child, effects).

A handler may assume that its event is of the child's own generation and that its cell of the table names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from trtd.core import restarts
from trtd.core.faults import Fault, FaultKind, classify_exit
from trtd.core.lifecycle.child import HISTORY_LENGTH, Child
from trtd.core.lifecycle.vocabulary import (
    IN_SERVICE,
    AskToStop,
    Beat,
    CloseGate,
    Desired,
    Effect,
    Event,
    Exited,
    FaultReported,
    IllegalEvent,
    KillGroup,
    OpenGate,
    RevokeLeases,
    Spawn,
    Spawned,
    SpawnFailed,
    State,
    Transition,
)
from trtd.errors import Blame

Outcome = tuple[Child, tuple[Effect, ...]]
Handler = Callable[[Child, Any, float], Outcome]

STOP_WANTED = Fault(FaultKind.REQUESTED, "was asked to stop", sticky=False)
RESTART_WANTED = Fault(FaultKind.REQUESTED, "was asked to restart", sticky=False)


def refuse(child: Child, event: Event, _now: float) -> Outcome:
    """Report an event that cannot happen here; nothing changes."""
    return child, (IllegalEvent(child.state, event, child.history),)


def _enter(child: Child, event: Event, now: float, state: State, **changes: Any) -> Child:
    transition = Transition(now, child.state, type(event).__name__, state)
    history = (*child.history[-(HISTORY_LENGTH - 1) :], transition)
    return replace(child, state=state, since=now, history=history, **changes)


# Starting


def start(child: Child, event: Event, now: float, *, is_probing: bool = False) -> Outcome:
    """Spawn the next generation."""
    generation = child.generation + 1
    started = _enter(
        child,
        event,
        now,
        State.STARTING,
        desired=Desired.UP,
        generation=generation,
        pid=None,
        deadline=None,
        restarting=False,
        is_killed=False,
        is_probing=is_probing,
        ready_at=None,
        in_flight=0,
        fault=None,
        restarts=child.restarts + 1 if child.history else 0,
    )
    return started, (Spawn(generation),)


def start_afresh(child: Child, event: Event, now: float) -> Outcome:
    """Spawn now: whoever asks has reason to believe that it works again, so earlier failures do not count."""
    return start(replace(child, failures=0, deaths=()), event, now)


def spawned(child: Child, event: Spawned, now: float) -> Outcome:
    """Wait for the hello."""
    if child.pid is not None:
        return refuse(child, event, now)
    return replace(child, pid=event.pid, deadline=now + child.timeouts.hello_s), ()


def spawned_too_late(child: Child, event: Spawned, now: float) -> Outcome:
    """Kill a process that nobody wants any more."""
    if child.pid is not None:
        return refuse(child, event, now)
    return (
        replace(child, pid=event.pid, is_killed=True, deadline=now + child.timeouts.reap_s),
        (KillGroup(child.generation),),
    )


def spawn_failed(child: Child, event: SpawnFailed, now: float) -> Outcome:
    """Treat it as a death for which the daemon is to blame."""
    if child.pid is not None:
        return refuse(child, event, now)
    fault = Fault(FaultKind.SPAWN_FAILED, f"cannot be started: {event.message}", blame=Blame.DAEMON)
    return _bury(replace(child, fault=fault, last_fault=fault), event, now, fault)


def greeted(child: Child, event: Event, now: float) -> Outcome:
    """Wait for the models."""
    if child.pid is None:
        return refuse(child, event, now)
    return _enter(child, event, now, State.WARMING, deadline=now + child.timeouts.warmup_s), ()


def become_ready(child: Child, event: Event, now: float) -> Outcome:
    """Open the gate."""
    ready = _enter(child, event, now, State.READY, ready_at=now, beat_at=now, progress=0, progress_at=now, in_flight=0)
    return replace(ready, deadline=_patience_ends(ready)), (OpenGate(child.generation),)


# Serving


def _patience_ends(child: Child) -> float:
    """The instant at which a serving child has been silent, stalled or draining for too long."""
    timeouts = child.timeouts
    ends = child.beat_at + timeouts.beat_s
    if child.in_flight:
        ends = min(ends, child.progress_at + timeouts.progress_s)
    if child.state is State.DRAINING:
        ends = min(ends, child.since + timeouts.drain_s)
    return ends


def beat(child: Child, event: Beat, now: float) -> Outcome:
    """Note the life sign; the clock of progress runs only while work is in flight."""
    moved = event.progress != child.progress or not child.in_flight or not event.in_flight
    alive = replace(
        child,
        beat_at=now,
        progress=event.progress,
        progress_at=now if moved else child.progress_at,
        in_flight=event.in_flight,
    )
    return replace(alive, deadline=_patience_ends(alive)), ()


def drain_to_restart(child: Child, event: Event, now: float) -> Outcome:
    """Let it finish what it holds; a start follows."""
    draining = _enter(child, event, now, State.DRAINING, restarting=True)
    return replace(draining, deadline=_patience_ends(draining)), (CloseGate(child.generation),)


def drain_to_stop(child: Child, event: Event, now: float) -> Outcome:
    """Let it finish what it holds; nothing follows."""
    draining = _enter(child, event, now, State.DRAINING, desired=Desired.DOWN)
    return replace(draining, deadline=_patience_ends(draining)), (CloseGate(child.generation),)


def end_service(child: Child, event: Event, now: float) -> Outcome:
    """Ask a serving child to stop; whatever it still holds goes to others."""
    fault = RESTART_WANTED if child.restarting else STOP_WANTED
    stopping = _enter(child, event, now, State.STOPPING, deadline=now + child.timeouts.stop_s)
    return _settle_health(stopping, now), (RevokeLeases(child.generation, fault), AskToStop(child.generation))


def stop_service(child: Child, event: Event, now: float) -> Outcome:
    """Ask a serving child to stop for good."""
    return end_service(_give_up(child), event, now)


def check_patience(child: Child, event: Event, now: float) -> Outcome:
    """End the service of a child that is silent, stalled, or does not finish what it holds."""
    if child.deadline is None or now < child.deadline:
        return child, ()
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
    return replace(child, deadline=_patience_ends(child)), ()


def _settle_health(child: Child, now: float) -> Child:
    """Forget earlier failures of a child that has served for long enough; called when its service ends."""
    if child.ready_at is not None and now - child.ready_at >= child.restarts_policy.healthy_after_s:
        return replace(child, failures=0, is_probing=False)
    return child


# Stopping


def _give_up(child: Child) -> Child:
    return replace(child, desired=Desired.DOWN, restarting=False)


def kill(child: Child, event: Event, now: float, fault: Fault | None) -> Outcome:
    """Kill the process, with the fault that it has to go for; None when it was only asked to."""
    effects: list[Effect] = []
    if child.state in IN_SERVICE:
        reason = fault or (RESTART_WANTED if child.restarting else STOP_WANTED)
        effects.append(RevokeLeases(child.generation, reason))
        child = _settle_health(child, now)
    is_alive = child.pid is not None
    if is_alive:
        effects.append(KillGroup(child.generation))
    stopping = _enter(
        child,
        event,
        now,
        State.STOPPING,
        deadline=now + child.timeouts.reap_s if is_alive else None,
        is_killed=is_alive,
        restarting=child.restarting and fault is None,
        fault=fault,
        last_fault=fault or child.last_fault,
    )
    return stopping, tuple(effects)


def kill_for_fault(child: Child, event: FaultReported, now: float) -> Outcome:
    """End a child that says it cannot go on. One that only complains goes on."""
    if child.pid is None:
        return refuse(child, event, now)
    if not event.fault.ends_process:
        return child, ()
    return kill(child, event, now, event.fault)


def kill_to_stop(child: Child, event: Event, now: float) -> Outcome:
    """Kill it for good: it holds nothing yet, or whoever asked does not want to wait."""
    return kill(_give_up(child), event, now, None)


def kill_to_restart(child: Child, event: Event, now: float) -> Outcome:
    """Kill a child that has nothing to finish; a start follows."""
    return kill(replace(child, restarting=True, failures=0, deaths=()), event, now, None)


def kill_for_slow_start(child: Child, event: Event, now: float) -> Outcome:
    """Kill a child whose patience to say hello, or to become ready, has ended."""
    if child.deadline is None or now < child.deadline:
        return child, ()
    what = "said no hello" if child.state is State.STARTING else "did not become ready"
    fault = Fault(FaultKind.START_TIMED_OUT, f"{what} within {now - child.since:.3g} s")
    return kill(child, event, now, fault)


def kill_stopping(child: Child, _event: Event, now: float) -> Outcome:
    """Somebody does not want to wait for a polite stop."""
    return _kill_politely_asked(_give_up(child), now, child.fault)


def _kill_politely_asked(child: Child, now: float, fault: Fault | None) -> Outcome:
    if child.is_killed or child.pid is None:
        return child, ()
    killed = replace(
        child,
        is_killed=True,
        deadline=now + child.timeouts.reap_s,
        fault=fault,
        last_fault=fault or child.last_fault,
    )
    return killed, (KillGroup(child.generation),)


def lose_patience_with_stop(child: Child, event: Event, now: float) -> Outcome:
    """Kill what was asked and did not leave; call stuck what was killed and is still there."""
    if child.deadline is None or now < child.deadline:
        return child, ()
    if child.is_killed:
        return _enter(child, event, now, State.STUCK, deadline=None), ()
    fault = Fault(FaultKind.STOP_TIMED_OUT, f"did not stop within {child.timeouts.stop_s:.3g} s")
    return _kill_politely_asked(child, now, fault)


def note_fault(child: Child, event: FaultReported, _now: float) -> Outcome:
    """Keep the child's own last word as the cause: it knows better than whoever had to kill it."""
    if not event.fault.ends_process:
        return child, ()
    return replace(child, fault=event.fault, last_fault=event.fault), ()


def want_again(child: Child, _event: Event, _now: float) -> Outcome:
    """Start it once it is gone, whatever it is going for."""
    if child.desired is Desired.UP:
        return child, ()
    return replace(child, desired=Desired.UP, restarting=True), ()


def restart_once_gone(child: Child, _event: Event, _now: float) -> Outcome:
    """Start it once it is gone, charged to no budget; what is not wanted stays down."""
    if child.desired is Desired.DOWN:
        return child, ()
    return replace(child, restarting=True), ()


def want_no_more(child: Child, _event: Event, _now: float) -> Outcome:
    """Let it go for good."""
    return _give_up(child), ()


# Gone


def exited(child: Child, event: Exited, now: float) -> Outcome:
    """A child that nobody asked to leave is dead."""
    if child.pid is None:
        return refuse(child, event, now)
    fault = classify_exit(event.status)
    dead = replace(child, fault=fault, last_fault=fault, restarting=False)
    if child.state not in IN_SERVICE:
        return _bury(dead, event, now, fault)
    buried, effects = _bury(_settle_health(dead, now), event, now, fault)
    return buried, (RevokeLeases(child.generation, fault), *effects)


def exited_as_asked(child: Child, event: Exited, now: float) -> Outcome:
    """A child that was asked to leave, or was killed, is gone; what it had to go for is what counts."""
    if child.pid is None:
        return refuse(child, event, now)
    fault = child.fault
    if fault is None:
        fault = classify_exit(event.status)
        if not child.is_killed and fault.kind is not FaultKind.EXITED:
            child = replace(child, last_fault=fault)
    return _bury(child, event, now, fault)


def _bury(child: Child, event: Exited | SpawnFailed, now: float, fault: Fault) -> Outcome:
    """No process is left: stay down, start again, wait, or suspend restarts."""
    gone = replace(child, pid=None, is_killed=False, restarting=False, deadline=None)
    if child.desired is Desired.DOWN:
        return _enter(gone, event, now, State.STOPPED), ()
    if child.restarting:
        return start(gone, event, now)
    policy = child.restarts_policy
    deaths = restarts.tally_death(policy, child.deaths, now) if fault.is_charged else child.deaths
    # A fault that nobody pays for still lets the wait grow: whatever causes it may last.
    failures = child.failures + 1
    gone = replace(gone, failures=failures, deaths=deaths)
    if fault.permanent:
        return _enter(gone, event, now, State.QUARANTINED), ()
    if (child.is_probing and fault.is_charged) or restarts.is_over_budget(policy, deaths):
        deadline = now + policy.probe_after_s if policy.probe_after_s else None
        return _enter(gone, event, now, State.QUARANTINED, deadline=deadline), ()
    delay_s = restarts.backoff_s(policy, failures, event.draw)
    if not delay_s:
        return start(gone, event, now, is_probing=child.is_probing)
    return _enter(gone, event, now, State.BACKOFF, deadline=now + delay_s), ()


def stop_waiting(child: Child, event: Event, now: float) -> Outcome:
    """No process is there to be stopped."""
    return _enter(child, event, now, State.STOPPED, desired=Desired.DOWN, deadline=None), ()


def start_after_backoff(child: Child, event: Event, now: float) -> Outcome:
    """The wait is over."""
    if child.deadline is None or now < child.deadline:
        return child, ()
    return start(child, event, now, is_probing=child.is_probing)


def probe(child: Child, event: Event, now: float) -> Outcome:
    """Try a suspended child once more."""
    if child.deadline is None or now < child.deadline:
        return child, ()
    return start(child, event, now, is_probing=True)
