"""The life of one supervised child process, worker or router, as a table in which every cell is decided.

`step(child, event, now)` is pure: it returns the child as it is afterwards and the effects that the shell shall perform.
The shell feeds back one event per outcome, failure included. A timer is not an effect: `next_deadline(child)` says when the
shell has to call `step` with `TimePassed`.

Left to others: which children exist and what a tenant wants of them (`trtd.core.fleet`), what a fault means
(`trtd.core.faults`), how long to wait before a restart (`trtd.core.restarts`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from trtd.core.faults import ExitStatus, Fault
from trtd.core.restarts import RestartPolicy


class State(StrEnum):
    """What is. STOPPED, BACKOFF and QUARANTINED imply that no process is left."""

    STOPPED = "stopped"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    QUARANTINED = "quarantined"
    STUCK = "stuck"


class Desired(StrEnum):
    """What the operator wants: operators change this, events change the state."""

    UP = "up"
    DOWN = "down"


# Events: things that happened. Each carries what the core needs and no clock: `now` is an argument of `step`.


@dataclass(frozen=True, slots=True)
class StartRequested:
    """The child shall run (also the way out of QUARANTINED)."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The child shall not run. In READY it is asked to stop at once: drain first to lose nothing of its leases."""


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """The child shall finish what it holds, stop, and be started again; this is charged to no budget."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """The process exists."""

    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The process could not be made."""

    generation: int
    message: str
    draw: float


@dataclass(frozen=True, slots=True)
class Greeted:
    """The child said hello over its channel: its interpreter runs our code."""

    generation: int


@dataclass(frozen=True, slots=True)
class BecameReady:
    """The child finished loading, warm-up and its known-answer probe."""

    generation: int


@dataclass(frozen=True, slots=True)
class Beat:
    """A life sign.

    Attributes:
        generation: whose.
        progress: counter that grows when work completes.
        in_flight: work begun and not completed.
    """

    generation: int
    progress: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class FaultReported:
    """The child, or whoever measures it, says what is wrong with it. A sticky fault ends its READY at once."""

    generation: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Emptied:
    """The router says that the child, whose gate is closed, holds no lease any more."""

    generation: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The process was reaped. `draw` in [0, 1) decides the jitter of a backoff."""

    generation: int
    status: ExitStatus
    draw: float


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The instant named by `next_deadline` has come (or passed)."""


Event = (
    StartRequested
    | StopRequested
    | RestartRequested
    | Spawned
    | SpawnFailed
    | Greeted
    | BecameReady
    | Beat
    | FaultReported
    | Emptied
    | Exited
    | TimePassed
)


# Effects: things the shell shall do. Each concerns the child that was stepped.


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process of this generation; answer with Spawned or SpawnFailed."""

    generation: int


@dataclass(frozen=True, slots=True)
class AskToStop:
    """Send the polite request over the child's channel."""

    generation: int


@dataclass(frozen=True, slots=True)
class KillGroup:
    """SIGKILL the child's process group; Exited follows when the kernel has let go of it."""

    generation: int


@dataclass(frozen=True, slots=True)
class OpenGate:
    """The child of this generation may be given work."""

    generation: int


@dataclass(frozen=True, slots=True)
class CloseGate:
    """Give the child no new work; it finishes what it holds, then Emptied is due."""

    generation: int


@dataclass(frozen=True, slots=True)
class RevokeLeases:
    """Nothing that the child of this generation sends counts any more; what it held goes to a successor."""

    generation: int
    fault: Fault


Effect = Spawn | AskToStop | KillGroup | OpenGate | CloseGate | RevokeLeases


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
class Transition:
    """One line of a child's history, for `trtd status --json` and for the text of an illegal event."""

    at: float
    before: State
    event: str
    after: State


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
        beat_at: instant of the last life sign.
        progress: last progress counter.
        progress_at: when progress last changed, or nothing was in flight.
        in_flight: as the child last said.
        fault: why the present or last process had to go; None while it is well.
        failures: deaths since the last healthy period; the exponent of the backoff.
        deaths: instants of deaths that count against the budget, oldest first, bounded.
        restarts: spawns beyond the first, for people.
        history: newest last, bounded.
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
    beat_at: float = 0.0
    progress: int = 0
    progress_at: float = 0.0
    in_flight: int = 0
    fault: Fault | None = None
    failures: int = 0
    deaths: tuple[float, ...] = ()
    restarts: int = 0
    history: tuple[Transition, ...] = field(default=())
