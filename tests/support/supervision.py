"""Builders for the pure supervision core: a child in any state, one event of any type, a tenant's specification."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trtd.core import lifecycle
from trtd.core.faults import ExitStatus, Fault, FaultKind
from trtd.core.fleet import TenantSpec
from trtd.core.ids import TenantName
from trtd.core.lifecycle import Child, Desired, Event, State, Timeouts
from trtd.core.restarts import Death, RestartPolicy

GENERATION = 3
PID = 1003
NOW = 100.0
CRASH = ExitStatus(signal=11)
CLEAN = ExitStatus(code=0)


def make_fault(kind: FaultKind = FaultKind.CRASHED, **changes: Any) -> Fault:
    """A charged, sticky fault of a tenant's process."""
    return Fault(kind, changes.pop("message", "went wrong"), **changes)


def make_deaths(*instants: float) -> tuple[Death, ...]:
    """Deaths of earlier lives, each at its instant."""
    return tuple(Death(at, 0) for at in instants)


def make_child(state: State = State.READY, **changes: Any) -> Child:
    """A child that has been in the given state since NOW, in its third life, with a process where the state has one."""
    timeouts, policy = Timeouts(), RestartPolicy()
    patience_s = {
        State.STARTING: timeouts.hello_s,
        State.WARMING: timeouts.warmup_s,
        State.READY: timeouts.beat_s,
        State.DRAINING: timeouts.beat_s,
        State.STOPPING: timeouts.stop_s,
        State.BACKOFF: 1.0,
        State.QUARANTINED: policy.probe_after_s,
    }
    has_process = state not in lifecycle.PROCESSLESS
    is_gone_for_fault = state in (State.BACKOFF, State.QUARANTINED, State.STUCK)
    is_in_service = state in (State.READY, State.DRAINING)
    child = Child(
        "t/0",
        timeouts,
        policy,
        state=state,
        desired=Desired.DOWN if state in (State.STOPPED, State.STOPPING) else Desired.UP,
        generation=GENERATION,
        pid=PID if has_process else None,
        since=NOW,
        deadline=NOW + patience_s[state] if state in patience_s else None,
        restarting=state is State.DRAINING,
        is_killed=state is State.STUCK,
        ready_at=NOW if is_in_service else None,
        beat_at=NOW,
        progress_at=NOW,
        fault=make_fault() if is_gone_for_fault else None,
        last_fault=make_fault() if is_gone_for_fault else None,
    )
    child = replace(child, **changes)
    lifecycle.check(child)
    return child


def make_event(event: type[Event], generation: int = GENERATION, **changes: Any) -> Event:
    """An event of the given type, about the given life."""
    values: dict[str, Any] = {
        "generation": generation,
        "pid": PID,
        "message": "no memory",
        "draw": 0.5,
        "progress": 1,
        "in_flight": 0,
        "fault": make_fault(),
        "life": generation,
        "status": CRASH,
        "sight": None,
        "is_permanent": False,
        "last_words": "",
        "is_resting": False,
        **changes,
    }
    return event(**{name: values[name] for name in event.__dataclass_fields__})


def make_spec(name: str = "a", **changes: Any) -> TenantSpec:
    """A tenant with one worker and default patience."""
    spec = TenantSpec(TenantName(name), 1, Timeouts(), RestartPolicy(), worker_digest="w1", router_digest="r1")
    return replace(spec, **changes)
