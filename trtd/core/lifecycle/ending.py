"""Handlers of children that have to go: killed, asked to stop, stuck, or gone; and what follows."""

from __future__ import annotations

from dataclasses import replace

from trtd.core import restarts
from trtd.core.faults import Fault, FaultKind, classify_early_exit, classify_exit
from trtd.core.lifecycle.child import Child, look, silence, wait_for_patience
from trtd.core.lifecycle.common import OUT_OF_SERVICE, Outcome, enter, refuse, settle_health
from trtd.core.lifecycle.starting import forget_deaths, start
from trtd.core.lifecycle.vocabulary import (
    IN_SERVICE,
    DeathExcused,
    Desired,
    Effect,
    Event,
    Exited,
    FaultReported,
    KillGroup,
    RevokeLeases,
    SpawnFailed,
    SpawnWithdrawn,
    State,
    TimePassed,
)
from trtd.errors import Blame

NO_JITTER = 0.5
"""The draw that neither shortens nor lengthens a wait."""

STOP_WANTED = Fault(FaultKind.REQUESTED, "was asked to stop", sticky=False)
RESTART_WANTED = Fault(FaultKind.REQUESTED, "was asked to restart", sticky=False)


def requested_fault(child: Child) -> Fault:
    """The cause of an end that nobody is to blame for."""
    return RESTART_WANTED if child.restarting else STOP_WANTED


def owned(child: Child, fault: Fault) -> Fault:
    """A fault for which nobody else is to blame, blamed on whose child it is.

    Nothing that ends a process after it was ready is permanent: its files were good. If they are not any more, its
    successor will find that.
    """
    blame = child.owner if fault.blame is Blame.TENANT else fault.blame
    return replace(fault, blame=blame, permanent=fault.permanent and child.ready_at is None)


def give_up(child: Child) -> Child:
    """The child, wanted no more."""
    return replace(child, desired=Desired.DOWN, restarting=False)


def kill(child: Child, event: Event, now: float, fault: Fault | None) -> Outcome:
    """Kill the process, with the fault that it has to go for; None when it was only asked to."""
    effects: list[Effect] = []
    fault = None if fault is None else owned(child, fault)
    if child.state in IN_SERVICE:
        reason = fault or requested_fault(child)
        effects.append(RevokeLeases(child.generation, reason))
        child = settle_health(child, now)
    is_alive = child.pid is not None
    if is_alive:
        effects.append(KillGroup(child.generation))
    stopping = enter(
        child,
        event,
        now,
        State.STOPPING,
        deadline=now + child.timeouts.reap_s if is_alive else None,
        is_killed=is_alive,
        **OUT_OF_SERVICE,
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
    return kill(give_up(child), event, now, None)


def kill_to_restart(child: Child, event: Event, now: float) -> Outcome:
    """Kill a child that has nothing to finish; a start follows."""
    return kill(replace(forget_deaths(child), restarting=True), event, now, None)


def fault_of_stop(child: Child, now: float) -> Fault | None:
    """Why a child that is stopped by a signal has to go; None as long as it may stay."""
    stopped_s = child.timeouts.stopped_s
    if child.stopped_since is None or not stopped_s or now < child.stopped_since + stopped_s:
        return None
    return Fault(FaultKind.BEAT_MISSED, f"was stopped by a signal for {now - child.stopped_since:.3g} s")


def check_slow_start(child: Child, event: TimePassed, now: float) -> Outcome:
    """Kill a child whose patience to say hello, or to become ready, has ended."""
    child = look(child, event.sight, now)
    if (fault := fault_of_stop(child, now)) is not None:
        return kill(child, event, now, fault)
    if now < silence(child).ends_at:
        return wait_for_patience(child), ()
    what = "said no hello" if child.state is State.STARTING else "did not become ready"
    fault = Fault(FaultKind.START_TIMED_OUT, f"{what} within {now - child.since:.3g} s")
    return kill(child, event, now, fault)


def kill_stopping(child: Child, _event: Event, now: float) -> Outcome:
    """Somebody does not want to wait for a polite stop."""
    return _kill_politely_asked(give_up(child), now, child.fault)


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
    if child.is_killed:
        return enter(child, event, now, State.STUCK, deadline=None), ()
    fault = owned(child, Fault(FaultKind.STOP_TIMED_OUT, f"did not stop within {child.timeouts.stop_s:.3g} s"))
    return _kill_politely_asked(child, now, fault)


def note_fault(child: Child, event: FaultReported, _now: float) -> Outcome:
    """Keep the child's own last word as the cause: it knows better than whoever had to kill it."""
    if not event.fault.ends_process:
        return child, ()
    fault = owned(child, event.fault)
    return replace(child, fault=fault, last_fault=fault), ()


def want_again(child: Child, _event: Event, _now: float) -> Outcome:
    """Start it once it is gone, whatever it is going for."""
    if child.desired is Desired.UP:
        return child, ()
    return replace(child, desired=Desired.UP, restarting=True), ()


def restart_once_gone(child: Child, _event: Event, _now: float) -> Outcome:
    """Start it once it is gone, charged to no budget; what is not wanted stays down."""
    if child.desired is Desired.DOWN or child.restarting:
        return child, ()
    return replace(child, restarting=True), ()


def want_no_more(child: Child, _event: Event, _now: float) -> Outcome:
    """Let it go for good."""
    return give_up(child), ()


# Gone


def spawn_failed(child: Child, event: SpawnFailed, now: float) -> Outcome:
    """Treat it as a death for which the daemon is to blame."""
    if child.pid is not None:
        return refuse(child, event, now)
    message = f"cannot be started: {event.message}"
    fault = Fault(FaultKind.SPAWN_FAILED, message, blame=Blame.DAEMON, permanent=event.is_permanent)
    return _bury(replace(child, fault=fault, last_fault=fault), event, now, fault)


def spawn_withdrawn(child: Child, event: SpawnWithdrawn, now: float) -> Outcome:
    """There is nothing to wait for: stay down, or start as was asked meanwhile."""
    if child.pid is not None:
        return refuse(child, event, now)
    gone = replace(child, restarting=False, is_excused=False, deadline=None)
    if child.desired is Desired.DOWN:
        return enter(gone, event, now, State.STOPPED), ()
    return start(gone, event, now)


def exited(child: Child, event: Exited, now: float) -> Outcome:
    """A child that nobody asked to leave is dead."""
    if child.pid is None:
        return refuse(child, event, now)
    is_early = child.state is State.STARTING
    found = classify_early_exit(event.status, event.last_words) if is_early else classify_exit(event.status)
    fault = owned(child, found)
    dead = replace(child, fault=fault, last_fault=fault, restarting=False, **OUT_OF_SERVICE)
    if child.state not in IN_SERVICE:
        return _bury(dead, event, now, fault)
    buried, effects = _bury(settle_health(dead, now), event, now, fault)
    return buried, (RevokeLeases(child.generation, fault), *effects)


def exited_as_asked(child: Child, event: Exited, now: float) -> Outcome:
    """A child that was asked to leave, or was killed, is gone; what it had to go for is what counts."""
    if child.pid is None:
        return refuse(child, event, now)
    fault = child.fault
    if fault is None:
        fault = owned(child, classify_exit(event.status))
        if not child.is_killed and fault.kind is not FaultKind.EXITED:
            child = replace(child, last_fault=fault)
    return _bury(child, event, now, fault)


def _bury(child: Child, event: Exited | SpawnFailed, now: float, fault: Fault) -> Outcome:
    """No process is left: stay down, start again, wait, or suspend restarts."""
    if child.is_excused:
        child, fault = excused(child, fault)
    gone = replace(child, pid=None, is_killed=False, is_excused=False, restarting=False, deadline=None)
    if child.desired is Desired.DOWN:
        return enter(gone, event, now, State.STOPPED), ()
    if child.restarting:
        return start(gone, event, now)
    policy = child.restarts_policy
    death = restarts.Death(now, child.generation)
    # A fault that nobody pays for still lets the wait grow: whatever causes it may last. What a client did does not:
    # the router refuses it the next time.
    if fault.blame is not Blame.CLIENT:
        gone = replace(gone, failures=child.failures + 1)
    if fault.is_charged:
        gone = replace(gone, deaths=restarts.tally_death(policy, child.deaths, death))
    elif fault.is_of_device:
        gone = replace(gone, device_deaths=restarts.tally_death(policy, child.device_deaths, death))
    if fault.permanent:
        return enter(gone, event, now, State.QUARANTINED), ()
    if (child.is_probing and is_paid_for(fault)) or is_over_budget(gone):
        deadline = now + policy.probe_after_s if policy.probe_after_s else None
        return enter(gone, event, now, State.QUARANTINED, deadline=deadline), ()
    delay_s = restarts.backoff_s(policy, gone.failures, event.draw)
    if not delay_s:
        return start(gone, event, now, is_probing=child.is_probing)
    return enter(gone, event, now, State.BACKOFF, deadline=now + delay_s), ()


# Excused


def excused(child: Child, fault: Fault) -> tuple[Child, Fault]:
    """The child and the fault that ended its last process, blamed on a client."""
    fault = replace(fault, blame=Blame.CLIENT)
    return replace(child, fault=fault, last_fault=fault), fault


def excuse(child: Child, event: DeathExcused, now: float) -> Outcome:
    """Charge nobody for the end of a life: the present one, once it is gone, or one that was charged already."""
    if event.life < child.generation:
        return _take_back(child, event.life), ()
    if event.life > child.generation or child.state not in (State.STOPPING, State.STUCK):
        return refuse(child, event, now)
    return replace(child, is_excused=True), ()


def excuse_waiting(child: Child, event: DeathExcused, now: float) -> Outcome:
    """Shorten the wait by what the excused death had added to it."""
    if event.life > child.generation:
        return refuse(child, event, now)
    pardoned = _take_back(child, event.life)
    if pardoned is child:
        return child, ()
    delay_s = restarts.backoff_s(child.restarts_policy, pardoned.failures, NO_JITTER)
    deadline = min(child.deadline or now, child.since + delay_s)
    if deadline <= now:
        return start(pardoned, event, now, is_probing=child.is_probing)
    return replace(pardoned, deadline=deadline), ()


def excuse_suspended(child: Child, event: DeathExcused, now: float) -> Outcome:
    """Start it again, where nothing but excused deaths had suspended it."""
    if event.life > child.generation:
        return refuse(child, event, now)
    pardoned = _take_back(child, event.life)
    is_permanent = child.fault is not None and child.fault.permanent
    if pardoned is child or is_permanent or is_over_budget(pardoned):
        return pardoned, ()
    paid = (*pardoned.deaths, *pardoned.device_deaths)
    if child.is_probing and any(death.generation == child.generation for death in paid):
        return pardoned, ()
    return start(pardoned, event, now, is_probing=child.is_probing)


def _take_back(child: Child, life: int) -> Child:
    """The child without a death among those that it was charged for; itself where there is none."""
    kept = tuple(death for death in child.deaths if death.generation != life)
    if len(kept) == len(child.deaths):
        return child
    if life == child.generation and child.fault is not None:
        child, _ = excused(child, child.fault)
    return replace(child, deaths=kept, failures=max(0, child.failures - 1))


def is_paid_for(fault: Fault) -> bool:
    """Whether any budget pays for it."""
    return fault.is_charged or fault.is_of_device


def is_over_budget(child: Child) -> bool:
    """Whether restarts are to be suspended, for whichever of the two budgets."""
    policy = child.restarts_policy
    return restarts.is_over_budget(policy, child.deaths) or restarts.is_over_budget(policy, child.device_deaths)


def stop_waiting(child: Child, event: Event, now: float) -> Outcome:
    """No process is there to be stopped."""
    return enter(child, event, now, State.STOPPED, desired=Desired.DOWN, deadline=None), ()
