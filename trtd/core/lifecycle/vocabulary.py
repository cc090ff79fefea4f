"""The words of a child's lifecycle: its states, the events that reach it and the effects that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from trtd.core.faults import ExitStatus, Fault
from trtd.core.patience import Sight


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


PROCESSLESS = frozenset({State.STOPPED, State.BACKOFF, State.QUARANTINED})
"""States in which no process is left."""
IN_SERVICE = frozenset({State.READY, State.DRAINING})
"""States in which the child may hold leases."""


# Events: things that happened. Each carries what the core needs and no clock: `now` is an argument of `step`.


@dataclass(frozen=True, slots=True)
class StartRequested:
    """The child shall run. Out of BACKOFF and QUARANTINED it is started at once, with its whole budget."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The child shall not run. A READY one is asked to stop at once and what it holds goes to others.

    DrainRequested is gentler.
    """


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """The child shall finish what it holds and not run after that."""


@dataclass(frozen=True, slots=True)
class KillRequested:
    """The child shall not run, and its process is to be killed now."""


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """The child shall finish what it holds, stop, and be started again, charged to no budget.

    One that has nothing to finish is killed or started at once, with its whole budget. A child that is not wanted
    stays down.
    """


@dataclass(frozen=True, slots=True)
class Spawned:
    """The process exists."""

    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The process could not be made; `is_permanent` when the program is not there, or is none."""

    generation: int
    message: str
    draw: float
    is_permanent: bool = False


@dataclass(frozen=True, slots=True)
class SpawnWithdrawn:
    """The process was not wanted any more before it was made, and never will be."""

    generation: int


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
        is_resting: whether it has nothing to do, so that the next one comes late.
    """

    generation: int
    progress: int
    in_flight: int
    is_resting: bool = False


@dataclass(frozen=True, slots=True)
class BeatAsked:
    """The child was asked for a life sign, because it may have got work."""

    generation: int


@dataclass(frozen=True, slots=True)
class FaultReported:
    """The child, or whoever measures it, says what is wrong with it. A sticky fault ends its READY at once."""

    generation: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class DeathExcused:
    """The router found that a client's input ended this life: nobody pays for its death.

    It may come before the process is reaped, or after the next ones were started; so `life` is no event's generation.
    """

    life: int


@dataclass(frozen=True, slots=True)
class Emptied:
    """The router says that the child, whose gate is closed, holds no lease any more."""

    generation: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The process was reaped; its channel was read to the end before.

    Attributes:
        generation: whose.
        status: how it ended.
        draw: in [0, 1), the jitter of a backoff.
        last_words: the last line that it wrote to stderr before it said hello; empty for none.
    """

    generation: int
    status: ExitStatus
    draw: float
    last_words: str = ""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The instant named by `Child.deadline` has come (or passed), and everything that the child said was heard.

    Attributes:
        sight: of the child's process; None where there is none, or the kernel does not tell.
    """

    sight: Sight | None = None


Event = (
    StartRequested
    | StopRequested
    | DrainRequested
    | KillRequested
    | RestartRequested
    | Spawned
    | SpawnFailed
    | SpawnWithdrawn
    | Greeted
    | BecameReady
    | Beat
    | BeatAsked
    | FaultReported
    | DeathExcused
    | Emptied
    | Exited
    | TimePassed
)


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of a child's history, for `trtd status --json` and for the text of an illegal event."""

    at: float
    before: State
    event: str
    after: State


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
    """Nothing that the child of this generation sends counts any more; what it held goes to a successor.

    Follows each OpenGate exactly once, whatever ends the child's service; with a fault of kind REQUESTED nobody is
    suspected.
    """

    generation: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class SetAside:
    """The child is stopped by a signal: what it holds goes to others, and nobody is to blame."""

    generation: int


@dataclass(frozen=True, slots=True)
class TakeBack:
    """The child that was set aside goes on."""

    generation: int


@dataclass(frozen=True, slots=True)
class IllegalEvent:
    """Log it: an event that cannot happen in this state. It changed nothing.

    Attributes:
        state: the child's state when it came.
        event: what came.
        history: the child's last transitions, newest last.
    """

    state: State
    event: Event
    history: tuple[Transition, ...]

    def __str__(self) -> str:
        path = " -> ".join(str(transition.after) for transition in self.history)
        return f"{self.event!r} cannot happen in {self.state} (after {path or 'nothing'})"


Effect = Spawn | AskToStop | KillGroup | OpenGate | CloseGate | RevokeLeases | SetAside | TakeBack | IllegalEvent
