"""The daemon's story in its log: one event for each move of a child's life and of a tenant's phase."""

from __future__ import annotations

from typing import Any, NamedTuple

from trtd import observe
from trtd.core.faults import Fault
from trtd.core.fleet import ROUTER, Failure, Fleet, Phase
from trtd.core.ids import TenantName
from trtd.core.lifecycle import Child, Desired, Exited, IllegalEvent, State

log = observe.get_logger()
_illegal_limit = observe.RateLimit(10.0)

_MOVES = {
    State.WARMING: "greeted",
    State.READY: "became_ready",
    State.DRAINING: "drain_begun",
    State.STOPPING: "stop_begun",
    State.STUCK: "got_stuck",
}
_PHASES = {
    Phase.SERVING: "tenant.opened",
    Phase.DRAINING: "tenant.drain_begun",
    Phase.DRAINED: "tenant.drained",
    Phase.REMOVING: "tenant.removal_begun",
}


def child_fields(child: Child) -> dict[str, Any]:
    """What names a child and its life in a log line."""
    tenant, _, replica = child.name.partition("/")
    if child.name == ROUTER:
        return {"generation": child.generation}
    return {"tenant": tenant, "replica": int(replica), "generation": child.generation}


def fault_fields(fault: Fault) -> dict[str, Any]:
    """The whole fault in a log line; a code and texts only where there are any."""
    fields: dict[str, Any] = {
        "cause": str(fault.kind),
        "message": " ".join(fault.message.split()),
        "blame": str(fault.blame),
        "domain": str(fault.domain),
    }
    if fault.code:
        fields["code"] = fault.code
    if fault.texts:
        fields["texts"] = list(fault.texts)
    return fields


def tell_child_moved(before: Child, after: Child, event: object, now: float, **more: Any) -> None:
    """Log that a child moved from one state to another, with the cause where it did not do so on request."""
    area = _area(after)
    fields = {**child_fields(before), "state": str(after.state), **more}
    fault = after.fault or (after.last_fault if after.last_fault is not before.last_fault else before.fault)
    if fault is not None:
        fields |= fault_fields(fault)
    if isinstance(event, Exited):
        fields |= {"exit_code": event.status.code, "signal": event.status.signal}
        if after.deadline is not None and after.state in (State.BACKOFF, State.QUARANTINED):
            fields["restart_in_s"] = round(after.deadline - now, 3)
        write = log.info if after.desired is Desired.DOWN or fault is None else log.warning
        write(f"{area}.exited", **fields)
        if after.state is State.QUARANTINED:
            log.error(f"{area}.quarantined", **fields)
    elif after.state in _MOVES:
        write = log.error if after.state is State.STUCK else log.warning if fault is not None else log.info
        write(f"{area}.{_MOVES[after.state]}", **fields)


def tell_set_aside(child: Child) -> None:
    """Log that a child is stopped by a signal, so that its work goes to others."""
    fields = child_fields(child)
    message = "stopped by a signal; SIGCONT lets it go on, and what it held goes to others"
    log.warning(f"{_area(child)}.stopped", **fields, pid=child.pid, message=message)


def tell_taken_back(child: Child) -> None:
    """Log that a child that was set aside goes on."""
    log.info(f"{_area(child)}.continued", **child_fields(child), pid=child.pid)


def _area(child: Child) -> str:
    return "router" if child.name == ROUTER else "worker"


def tell_illegal_event(name: str, illegal: IllegalEvent, now: float) -> None:
    """Log an event that cannot happen in the child's state, with its history; a child can provoke many."""
    held_back = _illegal_limit.take(name, now)
    if held_back is not None:
        history = " ".join(f"{move.before}-{move.event}->{move.after}" for move in illegal.history[-6:])
        log.error(
            "child.event_refused",
            child=name,
            state=str(illegal.state),
            refused=type(illegal.event).__name__,
            history=history,
            held_back=held_back,
        )


class TenantStory(NamedTuple):
    """What the log tells of a tenant when it changes.

    Attributes:
        phase: what it does as a whole.
        outdated: how many of its workers are to be replaced.
        failure: why that was given up.
        outlook: the same for people, with what it means for clients.
    """

    phase: Phase
    outdated: int
    failure: Failure | None
    outlook: str


Stories = dict[TenantName, TenantStory]


def tenant_stories(fleet: Fleet) -> Stories:
    """The story of each tenant at this instant."""
    stories = {}
    for name, tenant in fleet.tenants.items():
        outdated = len(tenant.outdated) if tenant.phase is Phase.SERVING else 0
        outlook = fleet.progress(name).failure if tenant.failure is not None else ""
        stories[name] = TenantStory(tenant.phase, outdated, tenant.failure, outlook)
    return stories


def tell_tenants_moved(before: Stories, after: Stories) -> None:
    """Log the tenants that came, went or changed their phase, and how the replacement of their workers goes."""
    for name, now in after.items():
        was = before.get(name)
        if was is None or was.phase is not now.phase:
            log.info(_PHASES[now.phase], tenant=name)
        if was is not None:
            _tell_replacement(name, was, now)
    for name in before.keys() - after.keys():
        log.info("tenant.removed", tenant=name)


def _tell_replacement(name: TenantName, was: TenantStory, now: TenantStory) -> None:
    if now.failure is not None:
        if now.failure is not was.failure:
            cause = str(now.failure.fault.kind)
            log.error("tenant.replacement_failed", tenant=name, cause=cause, message=now.outlook)
    elif now.outdated and (not was.outdated or was.failure is not None):
        log.info("tenant.replacement_begun", tenant=name, workers=now.outdated)
    elif was.outdated and not now.outdated and now.phase is Phase.SERVING:
        log.info("tenant.replaced", tenant=name)
