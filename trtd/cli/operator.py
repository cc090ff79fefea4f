"""The client of the operators' socket: one command, its progress lines, its answer. Standard library only, for speed.

The protocol is in `trtd.wire.operator`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from trtd.errors import DeadlineExceeded, Malformed, NotAllowed, TrtdError, Unreachable, Usage, error_from_wire
from trtd.wire import addresses
from trtd.wire.operator import OPERATOR_VERSION

ANSWER_TIMEOUT_S = 10.0
"""Patience with a daemon between two lines; a command that takes longer tells its progress."""

MAX_ANSWER_BYTES = 1 << 26
"""A status record grows with the number of tenants, so it may be longer than a command."""

PERMISSIONS_HINT = "Become a user who may enter its directory, or have the directory opened."
BUSY_HINT = "See whether it is stopped or the host overloaded; its log tells what it does."
STRANGER_HINT = "Something that is no trtd, or another version of it, listens there."

_TIMEVAL = struct.Struct("ll")

Progress = Callable[[dict[str, Any]], None]


class CommandFailed(TrtdError):
    """The daemon's error for a command, with what it told beside it.

    Attributes:
        cause: the typed error.
        details: for `--json` and for the renderer.
    """

    def __init__(self, cause: TrtdError, details: dict[str, Any]) -> None:
        super().__init__(cause.message, retry_after_s=cause.retry_after_s)
        self.cause = cause
        self.details = details


def find_runtime_dir(chosen: str | None) -> str:
    """The runtime directory of a flag, or the one that the daemon would use."""
    return chosen or addresses.runtime_dir(os.environ, os.getuid())


def call(
    runtime_dir: str,
    command: str,
    args: dict[str, Any],
    *,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Give one command to the daemon and wait for its answer.

    Args:
        runtime_dir: of the daemon.
        command: a row of `OPERATOR_COMMANDS`.
        args: its arguments; those that are None are left out.
        on_progress: gets each progress line.

    Raises:
        trtd.errors.Unreachable: no daemon listens there.
        trtd.errors.DeadlineExceeded: the daemon listens and says nothing.
        CommandFailed: the daemon refused, or failed; its `cause` is the typed error.
    """
    path = addresses.operator_path(runtime_dir)
    line = command_line(command, args)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        _connect(sock, path)
        try:
            # Who is refused may find the connection closed before his command is out; the reason can still be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(line)
            with sock.makefile("rb") as lines:
                while True:
                    answer = parse_answer(lines.readline(MAX_ANSWER_BYTES), path)
                    if "progress" not in answer:
                        return result_of(answer)
                    if on_progress is not None:
                        on_progress(answer["progress"])
        except TimeoutError:
            text = f"the daemon at {path} said nothing for {ANSWER_TIMEOUT_S:g} s"
            raise DeadlineExceeded(text, hint=BUSY_HINT) from None
        except OSError as error:
            raise Unreachable(f"the daemon at {path} went away before it answered: {error.strerror}") from None


def _connect(sock: socket.socket, path: str) -> None:
    # The kernel's own timeout: with Python's, a unix socket does not wait where many are waiting before it.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(ANSWER_TIMEOUT_S), 0))
    try:
        sock.connect(path)
        sock.settimeout(ANSWER_TIMEOUT_S)
    except FileNotFoundError:
        raise Unreachable(f"no daemon is running at {path}: there is no such socket") from None
    except ConnectionRefusedError:
        raise Unreachable(f"no daemon is running at {path}: nobody listens on it") from None
    except PermissionError:
        raise NotAllowed(f"the permissions of {path} keep this user out", hint=PERMISSIONS_HINT) from None
    except (BlockingIOError, TimeoutError):
        text = f"the daemon at {path} is running and took no connection for {ANSWER_TIMEOUT_S:g} s: too many wait"
        raise DeadlineExceeded(text, hint=BUSY_HINT) from None
    except OSError as error:
        text = f"{path} cannot be connected to: {error.strerror or error}"
        raise Usage(text, hint="--runtime-dir takes the directory of a daemon's sockets.") from None


def command_line(command: str, args: dict[str, Any]) -> bytes:
    """The line that gives a command; arguments that are None are left out."""
    told = {name: value for name, value in args.items() if value is not None}
    return json.dumps({"v": OPERATOR_VERSION, "command": command, "args": told}).encode() + b"\n"


def parse_answer(line: bytes, path: str) -> dict[str, Any]:
    """One line of the daemon at `path`: progress or the last one.

    Raises:
        trtd.errors.Unreachable: there is no line any more.
        trtd.errors.Malformed: the line is none of the protocol.
    """
    if not line:
        raise Unreachable(f"the daemon at {path} went away before it answered")
    try:
        answer = json.loads(line)
    except ValueError:
        raise Malformed(f"the daemon at {path} answered with a line that is no JSON", hint=STRANGER_HINT) from None
    if not isinstance(answer, dict) or not all(isinstance(value, dict) for value in answer.values()):
        raise Malformed(f"the daemon at {path} answered with something that is no answer", hint=STRANGER_HINT)
    return answer


def result_of(answer: dict[str, Any]) -> dict[str, Any]:
    """What the last line holds.

    Raises:
        CommandFailed: it is an error.
    """
    if "ok" in answer:
        result: dict[str, Any] = answer["ok"]
        return result
    error = answer.get("error", {})
    cause = error_from_wire(str(error.get("code")), str(error.get("message")), error.get("retry_after_s"))
    if isinstance(error.get("hint"), str):
        cause.hint = error["hint"]
    raise CommandFailed(cause, error.get("details") or {})
