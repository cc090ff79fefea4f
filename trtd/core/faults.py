"""What went wrong with a process, who pays for it, and what else may share the damage.

Covers exits, hangs and what a worker reports about itself. The CUDA and Xid tables join here with the TensorRT runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from trtd.errors import Blame


class FaultDomain(StrEnum):
    """Everything that may share the damage of a fault."""

    REQUEST = "request"
    PROCESS = "process"
    SHARING = "sharing"
    DEVICE = "device"


class FaultKind(StrEnum):
    """The cause of a worker's end in one word, as logs, metrics and `trtd status` show it."""

    EXITED = "exited"
    KILLED = "killed"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    BEAT_MISSED = "beat_missed"
    PROGRESS_STALLED = "progress_stalled"
    START_TIMED_OUT = "start_timed_out"
    STOP_TIMED_OUT = "stop_timed_out"
    SPAWN_FAILED = "spawn_failed"
    BAD_MODEL = "bad_model"
    BAD_CONFIG = "bad_config"
    PROBE_FAILED = "probe_failed"
    TEMPORARY = "temporary"
    REQUESTED = "requested"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, classified.

    Attributes:
        kind: the cause in one word.
        message: the cause in one line, with codes and names, for a person.
        blame: who pays; restart budgets are charged to the tenant only for TENANT and DAEMON.
        domain: what may share the damage.
        sticky: whether the process that saw it can do no more work.
        permanent: whether a new process would fail alike until a file or the configuration changes.
        code: the numeric code of the layer that reported it (signal, exit status, CUDA result), 0 where none is known.
    """

    kind: FaultKind
    message: str
    blame: Blame = Blame.TENANT
    domain: FaultDomain = FaultDomain.PROCESS
    sticky: bool = True
    permanent: bool = False
    code: int = 0


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: an exit code, or the signal that killed it. Exactly one of the two is set.

    Attributes:
        code: exit code, None when a signal ended it.
        signal: signal number, None when it exited by itself.
    """

    code: int | None = None
    signal: int | None = None


class ProcessFault(Exception):
    """Raised inside a worker when its process is not sound any more; it must answer nothing and leave."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault
