"""What all handlers share: their shape, how a state is entered, and what it takes to be healthy.

A handler decides one or more cells of the table. It gets the child, an event of the child's own generation, and the
instant, and returns the child as it is afterwards and the effects. It sees `TimePassed` only when the child's deadline
has come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from trtd.core.lifecycle.child import HISTORY_LENGTH, Child
from trtd.core.lifecycle.vocabulary import Effect, Event, IllegalEvent, State, Transition

OUT_OF_SERVICE: dict[str, Any] = {"is_resting": False, "is_set_aside": False}
"""What no longer holds of a child whose service ends."""

Outcome = tuple[Child, tuple[Effect, ...]]
Handler = Callable[[Child, Any, float], Outcome]


def refuse(child: Child, event: Event, _now: float) -> Outcome:
    """Report an event that cannot happen here; nothing changes."""
    return child, (IllegalEvent(child.state, event, child.history),)


def enter(child: Child, event: Event, now: float, state: State, **changes: Any) -> Child:
    """The child in a new state, with the transition in its history."""
    transition = Transition(now, child.state, type(event).__name__, state)
    history = (*child.history[-(HISTORY_LENGTH - 1) :], transition)
    return replace(child, state=state, since=now, history=history, **changes)


def settle_health(child: Child, now: float) -> Child:
    """Forget earlier failures of a child that has served for long enough; called when its service ends."""
    if child.ready_at is not None and now - child.ready_at >= child.restarts_policy.healthy_after_s:
        return replace(child, failures=0, is_probing=False)
    return child
