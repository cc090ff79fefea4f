"""One supervised child as a value, its deadline, and what must always be true of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trtd.core.faults import Fault
from trtd.core.lifecycle.vocabulary import IN_SERVICE, PROCESSLESS, Desired, State, Transition
from trtd.core.restarts import RestartPolicy

HISTORY_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Patience with one child, in seconds.

    Attributes:
        hello_s: from spawn to hello.
        warmup_s: from hello to ready; model loading is part of it.
        beat_s: longest silence of a READY, DRAINING child.
        progress_s: longest time without progress while work is in flight.
        drain_s: from CloseGate to Emptied before leases are revoked.
        stop_s: from AskToStop to exit before KillGroup.
        reap_s: from KillGroup to exit before the child counts as STUCK.
    """

    hello_s: float = 20.0
    warmup_s: float = 120.0
    beat_s: float = 1.0
    progress_s: float = 30.0
    drain_s: float = 30.0
    stop_s: float = 5.0
    reap_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Child:
    """One supervised place and what is known about the process in it.

    Attributes:
        name: what people call it: "router", or "tenant/replica".
        state: what is.
        desired: what is wanted.
        generation: of the newest spawn; 0 before the first.
        pid: of the live process, None when there is none.
        since: when the state was entered.
        deadline: when the state's patience ends; None when it has none.
        restarting: whether the present stop is to be followed by a start that no budget pays for.
        is_killed: whether KillGroup was sent to the present process.
        is_probing: whether this life is the one try of a suspended child; a death before it was healthy suspends it
            again.
        ready_at: when the present process became ready; None when it did not.
        beat_at: instant of the last life sign.
        progress: last progress counter.
        progress_at: when progress last changed, or nothing was in flight.
        in_flight: as the child last said.
        fault: why the present process, or the last one where there is none, had to go; None while it is well.
        last_fault: the newest fault of any life, for people.
        failures: deaths since the last healthy period; the exponent of the backoff.
        deaths: instants of deaths that count against the budget, oldest first, bounded.
        restarts: spawns beyond the first, for people.
        history: newest last, at most HISTORY_LENGTH.
    """

    name: str
    timeouts: Timeouts
    restarts_policy: RestartPolicy
    state: State = State.STOPPED
    desired: Desired = Desired.DOWN
    generation: int = 0
    pid: int | None = None
    since: float = 0.0
    deadline: float | None = None
    restarting: bool = False
    is_killed: bool = False
    is_probing: bool = False
    ready_at: float | None = None
    beat_at: float = 0.0
    progress: int = 0
    progress_at: float = 0.0
    in_flight: int = 0
    fault: Fault | None = None
    last_fault: Fault | None = None
    failures: int = 0
    deaths: tuple[float, ...] = ()
    restarts: int = 0
    history: tuple[Transition, ...] = ()


def patience_ends(child: Child, *, beat_at: float, progress_at: float, in_flight: int) -> float:
    """The instant at which a serving child with these life signs is silent, stalled or draining for too long."""
    timeouts = child.timeouts
    ends = beat_at + timeouts.beat_s
    if in_flight:
        ends = min(ends, progress_at + timeouts.progress_s)
    if child.state is State.DRAINING:
        ends = min(ends, child.since + timeouts.drain_s)
    return ends


def wait_for_patience(child: Child) -> Child:
    """The child with the deadline that its state and its life signs give it."""
    ends = patience_ends(child, beat_at=child.beat_at, progress_at=child.progress_at, in_flight=child.in_flight)
    return replace(child, deadline=ends)


def adopt(child: Child, timeouts: Timeouts, restarts_policy: RestartPolicy) -> Child:
    """The child under a new configuration; a deadline that runs already is kept until something happens."""
    deaths = child.deaths[-(restarts_policy.budget + 1) :]
    return replace(child, timeouts=timeouts, restarts_policy=restarts_policy, deaths=deaths)


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
        "DRAINING ends in a stop or a restart": state is not State.DRAINING or child.restarting == is_up,
        "what serves became ready, and is well": state not in IN_SERVICE
        or (child.ready_at is not None and child.fault is None and not child.is_killed),
        "the death tally is in order and bounded": list(child.deaths) == sorted(child.deaths)
        and len(child.deaths) <= child.restarts_policy.budget + 1,
        "history is bounded": len(child.history) <= HISTORY_LENGTH,
    }
    broken = [promise for promise, holds in promises.items() if not holds]
    if broken:
        raise AssertionError(f"{'; '.join(broken)}: {child!r}")
