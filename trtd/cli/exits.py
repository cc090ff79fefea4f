"""Exit codes of the `trtd` command: one for each error code, from the vocabulary of `trtd.errors`."""

from __future__ import annotations

from trtd.errors import ErrorCode, ExitCode

INTERRUPTED = 130
"""After Ctrl-C, as shells have it."""
BROKEN_PIPE = 141
"""When the reader of the output is gone, as shells have it."""

EXIT_CODES: dict[ErrorCode, int] = {
    ErrorCode.MALFORMED: ExitCode.BAD_DATA,
    ErrorCode.UNSUPPORTED_VERSION: ExitCode.BAD_DATA,
    ErrorCode.NOT_ALLOWED: ExitCode.NO_PERMISSION,
    ErrorCode.UNKNOWN_MODEL: ExitCode.BAD_DATA,
    ErrorCode.INVALID_INPUT: ExitCode.BAD_DATA,
    ErrorCode.UNSUPPORTED_DTYPE: ExitCode.BAD_DATA,
    ErrorCode.TOO_LARGE: ExitCode.BAD_DATA,
    ErrorCode.POISONOUS: ExitCode.BAD_DATA,
    ErrorCode.BARRED: ExitCode.TEMPORARY,
    ErrorCode.DEADLINE_EXCEEDED: ExitCode.TEMPORARY,
    ErrorCode.OVERLOADED: ExitCode.TEMPORARY,
    ErrorCode.DRAINING: ExitCode.TEMPORARY,
    ErrorCode.UNAVAILABLE: ExitCode.UNAVAILABLE,
    ErrorCode.OUT_OF_MEMORY: ExitCode.TEMPORARY,
    ErrorCode.MODEL_FAILED: ExitCode.BAD_DATA,
    ErrorCode.WORKER_LOST: ExitCode.TEMPORARY,
    ErrorCode.ARENA_UNKNOWN: ExitCode.TEMPORARY,
    ErrorCode.UNREACHABLE: ExitCode.UNAVAILABLE,
    ErrorCode.INVALID_CONFIG: ExitCode.BAD_CONFIG,
    ErrorCode.USAGE: ExitCode.USAGE,
    ErrorCode.INTERNAL: ExitCode.INTERNAL,
}
