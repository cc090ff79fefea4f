"""Every way in which trtd says no: one code, one blame, one answer to "does a retry help", one hint.

A leaf module: it imports nothing of trtd, so that the pure core, the wire, the client and the command line share it.
It covers the errors that reach a client or an operator and the exit codes of our processes. What a fault of a worker
means for supervision is decided in `trtd.core.faults`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import ClassVar


class Blame(StrEnum):
    """Who has to act so that the error goes away."""

    CLIENT = "client"
    TENANT = "tenant"
    DEVICE = "device"
    DAEMON = "daemon"


class ErrorCode(StrEnum):
    """The code of an error on the wire. A code, once published, never changes its meaning."""

    MALFORMED = "malformed"
    UNSUPPORTED_VERSION = "unsupported_version"
    NOT_ALLOWED = "not_allowed"
    UNKNOWN_MODEL = "unknown_model"
    INVALID_INPUT = "invalid_input"
    UNSUPPORTED_DTYPE = "unsupported_dtype"
    TOO_LARGE = "too_large"
    POISONOUS = "poisonous"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    UNAVAILABLE = "unavailable"
    OUT_OF_MEMORY = "out_of_memory"
    MODEL_FAILED = "model_failed"
    WORKER_LOST = "worker_lost"
    ARENA_UNKNOWN = "arena_unknown"
    UNREACHABLE = "unreachable"
    INVALID_CONFIG = "invalid_config"
    USAGE = "usage"
    INTERNAL = "internal"
    BARRED = "barred"


@dataclass(frozen=True, slots=True)
class ErrorTraits:
    """What is known about every error of one code.

    Attributes:
        blame: who has to act.
        retryable: whether the same request can succeed later without anybody changing it.
        hint: what to do, in one sentence.
    """

    blame: Blame
    retryable: bool
    hint: str


TRAITS: dict[ErrorCode, ErrorTraits] = {
    ErrorCode.MALFORMED: ErrorTraits(Blame.CLIENT, False, "Send a message as the wire protocol describes it."),
    ErrorCode.UNSUPPORTED_VERSION: ErrorTraits(
        Blame.CLIENT, False, "Use a client that speaks one of the wire versions named in the message."
    ),
    ErrorCode.NOT_ALLOWED: ErrorTraits(
        Blame.CLIENT, False, "Ask the operator to add your user, group or key to the tenant."
    ),
    ErrorCode.UNKNOWN_MODEL: ErrorTraits(Blame.CLIENT, False, "Ask for one of the models named in the message."),
    ErrorCode.INVALID_INPUT: ErrorTraits(
        Blame.CLIENT,
        False,
        "Send the inputs with the names, dtypes and shapes that the model's metadata names.",
    ),
    ErrorCode.UNSUPPORTED_DTYPE: ErrorTraits(
        Blame.CLIENT, False, "Send numeric or bool tensors; strings and objects do not travel."
    ),
    ErrorCode.TOO_LARGE: ErrorTraits(Blame.CLIENT, False, "Send a smaller request, or ask for a higher limit."),
    ErrorCode.POISONOUS: ErrorTraits(
        Blame.CLIENT,
        False,
        "This very input has ended workers; have it looked at, or wait until its quarantine ends.",
    ),
    ErrorCode.BARRED: ErrorTraits(
        Blame.CLIENT, True, "Inputs of yours have ended workers: find out which, and send again later without them."
    ),
    ErrorCode.DEADLINE_EXCEEDED: ErrorTraits(
        Blame.TENANT, True, "Send again with a longer timeout, or lower the load."
    ),
    ErrorCode.OVERLOADED: ErrorTraits(Blame.TENANT, True, "Send again later, and less at a time."),
    ErrorCode.DRAINING: ErrorTraits(Blame.TENANT, True, "Send again when the tenant is back, or to another host."),
    ErrorCode.UNAVAILABLE: ErrorTraits(
        Blame.TENANT, True, "Send again later; the operator sees the reason in `trtd status`."
    ),
    ErrorCode.OUT_OF_MEMORY: ErrorTraits(
        Blame.TENANT, True, "Send a smaller batch, or raise the tenant's memory limit."
    ),
    ErrorCode.MODEL_FAILED: ErrorTraits(
        Blame.TENANT, False, "The model refused this input while it ran; the message says why."
    ),
    ErrorCode.WORKER_LOST: ErrorTraits(
        Blame.TENANT, True, "The workers that held this request died; send again, and look at `trtd status`."
    ),
    ErrorCode.ARENA_UNKNOWN: ErrorTraits(
        Blame.CLIENT, True, "Offer the shared memory again, or send the tensors in frames."
    ),
    ErrorCode.UNREACHABLE: ErrorTraits(Blame.DAEMON, True, "Start the daemon, or check the address of its socket."),
    ErrorCode.INVALID_CONFIG: ErrorTraits(Blame.TENANT, False, "Correct the configuration as the message says."),
    ErrorCode.USAGE: ErrorTraits(Blame.CLIENT, False, "See `trtd --help`, or the docstring of the function."),
    ErrorCode.INTERNAL: ErrorTraits(Blame.DAEMON, True, "This is a defect in trtd; the log has the details."),
}


class TrtdError(Exception):
    """An error that a client or an operator may see. Its text is one line and never a traceback.

    Attributes:
        code: the stable code.
        message: what happened, with the values that matter, in one line.
        retry_after_s: how long to wait before a retry can help, where that is known.
        hint: what to do, where who raised it knows better than its code; empty where the message says all.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL

    def __init__(self, message: str, *, retry_after_s: float | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.hint = hint

    @property
    def traits(self) -> ErrorTraits:
        """Blame, retryability and hint of this error's code."""
        return TRAITS[self.code]

    @property
    def retryable(self) -> bool:
        """Whether the same request can succeed later."""
        return self.traits.retryable

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Malformed(TrtdError):
    """A message does not follow the wire protocol."""

    code = ErrorCode.MALFORMED


class UnsupportedVersion(TrtdError):
    """A message speaks a wire version that this side does not."""

    code = ErrorCode.UNSUPPORTED_VERSION


class NotAllowed(TrtdError):
    """The peer may not use this endpoint, or the operator lacks the role for this command."""

    code = ErrorCode.NOT_ALLOWED


class UnknownModel(TrtdError):
    """The tenant has no model of that name or version."""

    code = ErrorCode.UNKNOWN_MODEL


class InvalidInput(TrtdError):
    """An input is missing, unknown, or has a dtype or shape that the model does not take."""

    code = ErrorCode.INVALID_INPUT


class UnsupportedDtype(TrtdError):
    """A tensor of a dtype that does not travel, such as a string."""

    code = ErrorCode.UNSUPPORTED_DTYPE


class TooLarge(TrtdError):
    """A request beyond a limit on bytes or frames."""

    code = ErrorCode.TOO_LARGE


class Poisonous(TrtdError):
    """The same input ended workers before and is refused for a while."""

    code = ErrorCode.POISONOUS


class Barred(TrtdError):
    """Inputs of this client ended workers again and again, and nothing is taken of it for a while."""

    code = ErrorCode.BARRED


class DeadlineExceeded(TrtdError):
    """The request was not answered in the time that its client gave it."""

    code = ErrorCode.DEADLINE_EXCEEDED


class Overloaded(TrtdError):
    """A bounded queue is full."""

    code = ErrorCode.OVERLOADED


class Draining(TrtdError):
    """The tenant finishes what it has and takes nothing new."""

    code = ErrorCode.DRAINING


class Unavailable(TrtdError):
    """The tenant has no worker that could serve, and none is about to."""

    code = ErrorCode.UNAVAILABLE


class OutOfMemory(TrtdError):
    """A limit on host or device memory refused the work."""

    code = ErrorCode.OUT_OF_MEMORY


class ModelFailed(TrtdError):
    """The runtime reported an error for this request; the worker lives."""

    code = ErrorCode.MODEL_FAILED


class WorkerLost(TrtdError):
    """Every worker that was given the request died before it answered."""

    code = ErrorCode.WORKER_LOST


class ArenaUnknown(TrtdError):
    """A request names shared memory that the daemon does not have, or not from this client."""

    code = ErrorCode.ARENA_UNKNOWN


class Unreachable(TrtdError):
    """No daemon answers at the address."""

    code = ErrorCode.UNREACHABLE


class InvalidConfig(TrtdError):
    """The configuration cannot be used.

    Attributes:
        problems: all that is wrong, one line each; the message alone where nothing else is known.
    """

    code = ErrorCode.INVALID_CONFIG

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        hint: str | None = None,
        problems: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s, hint=hint)
        self.problems = problems or (message,)


class Usage(TrtdError):
    """A command or a function was called with arguments that it does not take."""

    code = ErrorCode.USAGE


class Internal(TrtdError):
    """A defect of trtd's own."""

    code = ErrorCode.INTERNAL


BY_CODE: dict[ErrorCode, type[TrtdError]] = {
    kind.code: kind
    for kind in (
        Malformed, UnsupportedVersion, NotAllowed, UnknownModel, InvalidInput, UnsupportedDtype, TooLarge, Poisonous,
        Barred, DeadlineExceeded, Overloaded, Draining, Unavailable, OutOfMemory, ModelFailed, WorkerLost, ArenaUnknown,
        Unreachable, InvalidConfig, Usage, Internal,
    )
}  # fmt: skip


def error_from_wire(code: str, message: str, retry_after_s: float | None = None) -> TrtdError:
    """The typed error for a code read from a message; an unknown code becomes `Internal` with its name kept."""
    try:
        kind = BY_CODE[ErrorCode(code)]
    except ValueError:
        return Internal(f"{code}: {message}", retry_after_s=retry_after_s)
    return kind(message, retry_after_s=retry_after_s)


class ExitCode(IntEnum):
    """How our processes end (sysexits.h). One vocabulary for daemon, workers, router and commands.

    2 to 7 are avoided for their LSB meanings and 200 and above for systemd's.
    """

    OK = 0
    USAGE = 64
    BAD_DATA = 65
    UNAVAILABLE = 69
    INTERNAL = 70
    IO_FAILED = 74
    TEMPORARY = 75
    NO_PERMISSION = 77
    BAD_CONFIG = 78


class StatusExitCode(IntEnum):
    """Exit codes of `trtd status`, in the manner of LSB init scripts."""

    ALL_READY = 0
    DEGRADED = 1
    NOT_RUNNING = 3
    UNKNOWN = 4
