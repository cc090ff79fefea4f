"""The life of one supervised child process, worker or router, as a table in which every cell is decided.

`step(child, event, now)` is pure: it returns the child as it is afterwards and the effects that the shell shall
perform. The shell feeds back one event per outcome, failure included. A timer is not an effect: `child.deadline` says
when the shell has to call `step` with `TimePassed`.

The words are in `vocabulary`, the child and its invariants in `child`, the table and `step` in `table`, what its cells
do in `starting`, `serving` and `ending`, and the picture in `diagram`. Left to others: which children exist and what a
tenant wants of them (`trtd.core.fleet`), what a fault means (`trtd.core.faults`), how long to wait before a restart
(`trtd.core.restarts`).
"""

from __future__ import annotations

from trtd.core.lifecycle.child import HISTORY_LENGTH, Child, Timeouts, adopt, check, succeed
from trtd.core.lifecycle.diagram import lifecycle_mermaid
from trtd.core.lifecycle.table import EVENTS, IGNORED, ILLEGAL, TRANSITIONS, Cell, Moves, Pass, step
from trtd.core.lifecycle.vocabulary import (
    IN_SERVICE,
    PROCESSLESS,
    AskToStop,
    Beat,
    BeatAsked,
    BecameReady,
    CloseGate,
    DeathExcused,
    Desired,
    DrainRequested,
    Effect,
    Emptied,
    Event,
    Exited,
    FaultReported,
    Greeted,
    IllegalEvent,
    KillGroup,
    KillRequested,
    OpenGate,
    RestartRequested,
    RevokeLeases,
    SetAside,
    Spawn,
    Spawned,
    SpawnFailed,
    SpawnWithdrawn,
    StartRequested,
    State,
    StopRequested,
    TakeBack,
    TimePassed,
    Transition,
)

__all__ = [
    "EVENTS",
    "HISTORY_LENGTH",
    "IGNORED",
    "ILLEGAL",
    "IN_SERVICE",
    "PROCESSLESS",
    "TRANSITIONS",
    "AskToStop",
    "Beat",
    "BeatAsked",
    "BecameReady",
    "Cell",
    "Child",
    "CloseGate",
    "DeathExcused",
    "Desired",
    "DrainRequested",
    "Effect",
    "Emptied",
    "Event",
    "Exited",
    "FaultReported",
    "Greeted",
    "IllegalEvent",
    "KillGroup",
    "KillRequested",
    "Moves",
    "OpenGate",
    "Pass",
    "RestartRequested",
    "RevokeLeases",
    "SetAside",
    "Spawn",
    "SpawnFailed",
    "SpawnWithdrawn",
    "Spawned",
    "StartRequested",
    "State",
    "StopRequested",
    "TakeBack",
    "TimePassed",
    "Timeouts",
    "Transition",
    "adopt",
    "check",
    "lifecycle_mermaid",
    "step",
    "succeed",
]
