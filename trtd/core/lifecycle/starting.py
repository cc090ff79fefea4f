"""Handlers of children that are not ready yet: from the spawn to the open gate."""

from __future__ import annotations

from dataclasses import replace

from trtd.core.lifecycle.child import Child, wait_for_patience
from trtd.core.lifecycle.common import Outcome, enter, refuse
from trtd.core.lifecycle.vocabulary import Desired, Event, KillGroup, OpenGate, Spawn, Spawned, State


def start(child: Child, event: Event, now: float, *, is_probing: bool = False) -> Outcome:
    """Spawn the next generation."""
    generation = child.generation + 1
    started = enter(
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
        is_excused=False,
        is_probing=is_probing,
        ready_at=None,
        in_flight=0,
        sight=None,
        stopped_since=None,
        fault=None,
        restarts=child.restarts + 1 if child.history else 0,
    )
    return started, (Spawn(generation),)


def start_afresh(child: Child, event: Event, now: float) -> Outcome:
    """Spawn now: whoever asks has reason to believe that it works again, so earlier failures do not count."""
    return start(forget_deaths(child), event, now)


def forget_deaths(child: Child) -> Child:
    """The child with its whole budgets."""
    return replace(child, failures=0, deaths=(), device_deaths=())


def spawned(child: Child, event: Spawned, now: float) -> Outcome:
    """Wait for the hello."""
    if child.pid is not None:
        return refuse(child, event, now)
    return wait_for_patience(replace(child, pid=event.pid, beat_at=now, beat_excused_s=0.0)), ()


def spawned_too_late(child: Child, event: Spawned, now: float) -> Outcome:
    """Kill a process that nobody wants any more."""
    if child.pid is not None:
        return refuse(child, event, now)
    return (
        replace(child, pid=event.pid, is_killed=True, deadline=now + child.timeouts.reap_s),
        (KillGroup(child.generation),),
    )


def greeted(child: Child, event: Event, now: float) -> Outcome:
    """Wait for the models."""
    if child.pid is None:
        return refuse(child, event, now)
    warming = enter(child, event, now, State.WARMING, beat_at=now, beat_excused_s=0.0, stopped_since=None)
    return wait_for_patience(warming), ()


def become_ready(child: Child, event: Event, now: float) -> Outcome:
    """Open the gate."""
    ready = enter(
        child,
        event,
        now,
        State.READY,
        ready_at=now,
        beat_at=now,
        beat_excused_s=0.0,
        progress=0,
        progress_at=now,
        in_flight=0,
        stopped_since=None,
    )
    return wait_for_patience(ready), (OpenGate(child.generation),)


def start_after_backoff(child: Child, event: Event, now: float) -> Outcome:
    """The wait is over."""
    return start(child, event, now, is_probing=child.is_probing)


def probe(child: Child, event: Event, now: float) -> Outcome:
    """Try a suspended child once more."""
    return start(child, event, now, is_probing=True)
