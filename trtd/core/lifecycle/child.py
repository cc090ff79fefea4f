"""One supervised child as a value, its deadline, and what must always be true of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trtd.core.faults import Fault
from trtd.core.lifecycle.vocabulary import IN_SERVICE, PROCESSLESS, Desired, State, Transition
from trtd.core.patience import Patience, Sight
from trtd.core.restarts import Death, RestartPolicy
from trtd.errors import Blame

HISTORY_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Patience with one child, in seconds of the supervisor's own time (`trtd.core.patience.OwnTime`).

    The first four do not run while the child is stopped by a signal or waits for a processor.

    Attributes:
        hello_s: from spawn to hello.
        warmup_s: from hello to ready; model loading is part of it.
        beat_s: longest silence of a READY, DRAINING child.
        idle_beat_s: how much longer it may be silent while it rests.
        progress_s: longest time without progress while work is in flight.
        stopped_s: how long it may be stopped by a signal before it is killed; 0 for ever.
        drain_s: from CloseGate to Emptied before leases are revoked.
        stop_s: from AskToStop to exit before KillGroup.
        reap_s: from KillGroup to exit before the child counts as STUCK.
    """

    hello_s: float = 20.0
    warmup_s: float = 120.0
    beat_s: float = 1.0
    idle_beat_s: float = 5.0
    progress_s: float = 30.0
    stopped_s: float = 60.0
    drain_s: float = 30.0
    stop_s: float = 5.0
    reap_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Child:
    """One supervised place and what is known about the process in it.

    Attributes:
        name: what people call it: "router", or "tenant/replica".
        owner: who is to blame for it where nobody else is known to be.
        state: what is.
        desired: what is wanted.
        generation: of the newest spawn; 0 before the first.
        pid: of the live process, None when there is none.
        since: when the state was entered.
        deadline: when the state's patience ends; None when it has none.
        restarting: whether the present stop is to be followed by a start that no budget pays for.
        is_killed: whether KillGroup was sent to the present process.
        is_excused: whether a client is to blame for the end of the present process.
        is_probing: whether this life is the one try of a suspended child; a death before it was healthy suspends it
            again.
        ready_at: when the present process became ready; None when it did not.
        beat_at: instant of the last life sign, of whatever kind; later by the time in which it was stopped since.
        beat_excused_s: how much longer the next one may take, because the child waited for a processor.
        is_resting: whether it said that it has nothing to do, so that its next life sign comes late.
        progress: last progress counter.
        progress_at: when progress last changed, or nothing was in flight; later by stops likewise.
        progress_excused_s: as for the life sign.
        in_flight: as the child last said.
        sight: what the kernel said of it at the last look, None before the first one.
        looked_at: when that was.
        stopped_since: since when it is stopped by a signal, as far as was seen; None while it is not.
        is_set_aside: whether what it held went to others, because it is stopped.
        fault: why the present process, or the last one where there is none, had to go; None while it is well.
        last_fault: the newest fault of any life, for people.
        failures: deaths since the last healthy period; the exponent of the backoff.
        deaths: those that count against the budget, oldest first, bounded.
        device_deaths: likewise, those that are blamed on a device, against a budget of their own.
        restarts: spawns beyond the first, for people.
        history: newest last, at most HISTORY_LENGTH.
    """

    name: str
    timeouts: Timeouts
    restarts_policy: RestartPolicy
    owner: Blame = Blame.TENANT
    state: State = State.STOPPED
    desired: Desired = Desired.DOWN
    generation: int = 0
    pid: int | None = None
    since: float = 0.0
    deadline: float | None = None
    restarting: bool = False
    is_killed: bool = False
    is_excused: bool = False
    is_probing: bool = False
    ready_at: float | None = None
    beat_at: float = 0.0
    beat_excused_s: float = 0.0
    is_resting: bool = False
    progress: int = 0
    progress_at: float = 0.0
    progress_excused_s: float = 0.0
    in_flight: int = 0
    sight: Sight | None = None
    looked_at: float = 0.0
    stopped_since: float | None = None
    is_set_aside: bool = False
    fault: Fault | None = None
    last_fault: Fault | None = None
    failures: int = 0
    deaths: tuple[Death, ...] = ()
    device_deaths: tuple[Death, ...] = ()
    restarts: int = 0
    history: tuple[Transition, ...] = ()


def silence(child: Child) -> Patience:
    """Patience with the next life sign: the hello, the word that it is ready, or a beat."""
    timeouts = child.timeouts
    since, limit_s = child.beat_at, timeouts.beat_s
    if child.is_resting:
        since += timeouts.idle_beat_s
    if child.state is State.STARTING:
        limit_s = timeouts.hello_s
    elif child.state is State.WARMING:
        limit_s = timeouts.warmup_s
    return Patience(since, limit_s, child.beat_excused_s)


def stall(child: Child) -> Patience | None:
    """Patience with the next progress; None while nothing is in flight."""
    if not child.in_flight:
        return None
    return Patience(child.progress_at, child.timeouts.progress_s, child.progress_excused_s)


def wait_for_patience(child: Child) -> Child:
    """The child with the deadline that its state and its life signs give it: the next look, or the end of a drain."""
    deadline = silence(child).next_look(child.looked_at)
    if (stalled := stall(child)) is not None:
        deadline = min(deadline, stalled.next_look(child.looked_at))
    if child.state is State.DRAINING:
        deadline = min(deadline, child.since + child.timeouts.drain_s)
    return replace(child, deadline=deadline)


def look(child: Child, sight: Sight | None, now: float) -> Child:
    """The child after another look at its process, with what that excuses; nothing where the kernel does not tell."""
    if sight is None:
        return replace(child, sight=None, looked_at=now, stopped_since=None)
    before = silence(child)
    quiet = before.excuse(child.sight, sight, child.looked_at, now)
    stalled = stall(child)
    if stalled is not None:
        stalled = stalled.excuse(child.sight, sight, child.looked_at, now)
    stopped_since = None
    if sight.is_stopped:
        # A serving child speaks so often that it can have been stopped ever since it was last heard.
        began_at = max(child.beat_at, child.looked_at) if child.state in IN_SERVICE else now
        stopped_since = began_at if child.stopped_since is None else child.stopped_since
    return replace(
        child,
        beat_at=child.beat_at + quiet.since - before.since,
        beat_excused_s=quiet.excused_s,
        progress_at=child.progress_at if stalled is None else stalled.since,
        progress_excused_s=child.progress_excused_s if stalled is None else stalled.excused_s,
        sight=sight,
        looked_at=now,
        stopped_since=stopped_since,
    )


def adopt(child: Child, timeouts: Timeouts, restarts_policy: RestartPolicy) -> Child:
    """The child under a new configuration; a deadline that runs already is kept until something happens."""
    most = restarts_policy.budget + 1
    return replace(
        child,
        timeouts=timeouts,
        restarts_policy=restarts_policy,
        deaths=child.deaths[-most:],
        device_deaths=child.device_deaths[-most:],
    )


def succeed(child: Child, former: Child) -> Child:
    """The child with the story that people were told of the one whose work it takes over: restarts, newest fault."""
    return replace(
        child, restarts=former.restarts + 1 + child.restarts, last_fault=child.last_fault or former.last_fault
    )


def check(child: Child) -> None:
    """Compare a child with what must always be true.

    Raises:
        AssertionError: it is not; the text names the broken promise and the child.
    """
    state = child.state
    is_up = child.desired is Desired.UP
    has_process = child.pid is not None
    has_deadline = child.deadline is not None
    promises = {
        "only a state without process has none": state in (State.STARTING, State.STOPPING)
        or has_process == (state not in PROCESSLESS),
        "STOPPED is not wanted": not (state is State.STOPPED and is_up),
        "only wanted children are started, serve or wait for a restart": is_up
        or state in (State.STOPPED, State.DRAINING, State.STOPPING, State.STUCK),
        "STOPPED and STUCK wait for no instant": not (state in (State.STOPPED, State.STUCK) and has_deadline),
        "WARMING, READY, DRAINING and BACKOFF have a deadline": has_deadline
        or state not in (State.WARMING, State.READY, State.DRAINING, State.BACKOFF),
        "patience with a start or a stop begins with the process": state not in (State.STARTING, State.STOPPING)
        or has_process == has_deadline,
        "a stop without process has nothing to kill": has_process or not child.is_killed,
        "a permanent fault is probed by nobody": not (
            state is State.QUARANTINED and has_deadline and child.fault is not None and child.fault.permanent
        ),
        "what waits for a restart knows why": child.fault is not None
        or state not in (State.BACKOFF, State.QUARANTINED),
        "only what is about to go is restarting": not child.restarting
        or (is_up and state in (State.DRAINING, State.STOPPING, State.STUCK)),
        "only what is about to go is excused": not child.is_excused or state in (State.STOPPING, State.STUCK),
        "DRAINING ends in a stop or a restart": state is not State.DRAINING or child.restarting == is_up,
        "only what serves rests": not child.is_resting or state in IN_SERVICE,
        "only what serves is set aside": not child.is_set_aside or state in IN_SERVICE,
        "what serves became ready, and is well": state not in IN_SERVICE
        or (child.ready_at is not None and child.fault is None and not child.is_killed),
        "the death tallies are in order and bounded": all(
            list(deaths) == sorted(deaths) and len(deaths) <= child.restarts_policy.budget + 1
            for deaths in (child.deaths, child.device_deaths)
        ),
        "history is bounded": len(child.history) <= HISTORY_LENGTH,
    }
    broken = [promise for promise, holds in promises.items() if not holds]
    if broken:
        raise AssertionError(f"{'; '.join(broken)}: {child!r}")
