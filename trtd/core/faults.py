"""What went wrong with a process, who pays for it, and what else may share the damage.

Covers exits, hangs and what a worker reports about itself. What CUDA's codes and TensorRT's texts mean is in
`trtd.core.cuda_faults`.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum

from trtd.errors import Blame, ExitCode


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
    START_FAILED = "start_failed"
    BAD_MODEL = "bad_model"
    BAD_CONFIG = "bad_config"
    PROBE_FAILED = "probe_failed"
    STICKY_ERROR = "sticky_error"
    DEVICE_AWAITED = "device_awaited"
    UNACCOUNTED_MEMORY = "unaccounted_memory"
    MISBEHAVED = "misbehaved"
    TEMPORARY = "temporary"
    REQUESTED = "requested"


CHARGED_BLAMES = frozenset({Blame.TENANT, Blame.DAEMON})
CRASH_SIGNALS = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGSYS,
    }
)
"""Signals by which a process ends itself; any other one came from somebody else."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, classified.

    Attributes:
        kind: the cause in one word.
        message: the cause in one line, with codes and names, for a person.
        blame: who pays; restart budgets are charged to the tenant only for TENANT and DAEMON. CLIENT says that an input
            of a client ended it, as the router found.
        domain: what may share the damage.
        sticky: whether the process that saw it can do no more work.
        permanent: whether a new process would fail alike until a file or the configuration changes.
        code: the numeric code of the layer that reported it (signal, exit status, CUDA result), 0 where none is known.
        texts: what the layers below said of it, one line each; empty where they said nothing.
    """

    kind: FaultKind
    message: str
    blame: Blame = Blame.TENANT
    domain: FaultDomain = FaultDomain.PROCESS
    sticky: bool = True
    permanent: bool = False
    code: int = 0
    texts: tuple[str, ...] = ()

    @property
    def is_charged(self) -> bool:
        """Whether the restart budget of the child that had this fault pays for it."""
        return self.blame in CHARGED_BLAMES and self.kind is not FaultKind.REQUESTED

    @property
    def is_of_device(self) -> bool:
        """Whether the budget pays that there is for faults of devices. Who only waits for one pays nothing."""
        return self.blame is Blame.DEVICE and self.kind is not FaultKind.DEVICE_AWAITED

    @property
    def ends_process(self) -> bool:
        """Whether the process that reported it has to go."""
        return self.sticky or self.permanent


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


def classify_exit(status: ExitStatus) -> Fault:
    """The fault that an exit stands for, when nobody asked the process to leave and it gave no other cause."""
    if status.signal is not None:
        return _classify_signal(status.signal)
    code = status.code or 0
    match code:
        case ExitCode.OK:
            return Fault(FaultKind.EXITED, "left without being asked (exit code 0)")
        case ExitCode.BAD_DATA:
            return Fault(FaultKind.BAD_MODEL, f"cannot use its model (exit code {code})", permanent=True, code=code)
        case ExitCode.BAD_CONFIG:
            message = f"cannot use its configuration (exit code {code})"
            return Fault(FaultKind.BAD_CONFIG, message, permanent=True, code=code)
        case ExitCode.TEMPORARY:
            return Fault(FaultKind.TEMPORARY, f"left to be restarted (exit code {code})", code=code)
        case ExitCode.INTERNAL:
            message = f"left with a defect of trtd's own (exit code {code})"
            return Fault(FaultKind.EXITED, message, blame=Blame.DAEMON, code=code)
        case _:
            return Fault(FaultKind.EXITED, f"exited with code {code}", code=code)


def _classify_signal(number: int) -> Fault:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number in CRASH_SIGNALS:
        return Fault(FaultKind.CRASHED, f"crashed with {name}", code=number)
    return Fault(FaultKind.KILLED, f"killed by {name}", code=number)


WANT_OF_RESOURCES = (
    "memoryerror", "cannot allocate memory", "too many open files", "resource temporarily unavailable",
    "input/output error", "interrupted system call",
)  # fmt: skip
"""What a program says that could not start now and may be able to later."""
START_CODES = frozenset({1, 2, int(ExitCode.INTERNAL)})
"""Exit codes of an interpreter without its program, of a program that breaks off, and of one that has odd settings."""


def classify_early_exit(status: ExitStatus, last_words: str) -> Fault:
    """The fault of a child that ended before it said hello: it may never have been a program of ours.

    Args:
        status: how it ended.
        last_words: the last line that it wrote to stderr; empty where there is none.
    """
    if status.code in START_CODES and last_words:
        return start_failed(last_words, status.code or 0)
    # A signal says nothing about the next try.
    return classify_exit(status)


def start_failed(cause: str, code: int = 0) -> Fault:
    """The fault of a child that breaks off before it loads a model.

    Without our package, with another Python or with settings of another version every try ends alike, so one is enough.
    Want of memory or of descriptors passes.
    """
    return Fault(
        FaultKind.START_FAILED,
        f"cannot start: {cause}" + (f" (exit code {code})" if code else ""),
        blame=Blame.DAEMON,
        permanent=not any(want in cause.lower() for want in WANT_OF_RESOURCES),
        code=code,
    )
