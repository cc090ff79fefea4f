"""The operators' socket: who may connect, one command per connection, typed one-line errors, nobody waits for anybody.

The protocol and the table of commands are in `trtd.wire.operator`; the handlers are in `trtd.supervisor.commands`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from trtd import observe
from trtd.errors import Internal, Malformed, NotAllowed, Overloaded, TrtdError, UnsupportedVersion, Usage
from trtd.supervisor.peers import Peer, Roles, peer_of
from trtd.wire.operator import MAX_LINE_BYTES, OPERATOR_COMMANDS, OPERATOR_VERSION, OperatorCommand

Progress = Callable[[dict[str, Any]], Awaitable[None]]
Handler = Callable[[dict[str, Any], Progress], Awaitable[dict[str, Any]]]
"""Takes the checked arguments, tells how it goes, and returns the answer or raises a `TrtdError`."""

ASK_TIMEOUT_S = 10.0
"""Patience with an operator who connected and says nothing."""
WRITE_TIMEOUT_S = 10.0
"""Patience with an operator who does not read."""
LINGER_S = 1.0
"""Patience with an operator who has his answer and goes on talking."""
MAX_CONNECTIONS = 64
"""Most commands at a time; as many connections again may wait for their refusal, further ones are cut off."""

ROWS = {row.name: row for row in OPERATOR_COMMANDS}

log = observe.get_logger()


class CommandFailed(TrtdError):
    """A typed error with more to tell than fits its line.

    Attributes:
        cause: the error itself.
        details: plain values for `--json` and for the command line to show.
    """

    def __init__(self, cause: TrtdError, details: dict[str, Any]) -> None:
        super().__init__(cause.message, retry_after_s=cause.retry_after_s)
        self.cause = cause
        self.details = details


def parse_command(line: bytes) -> tuple[OperatorCommand, dict[str, Any]]:
    """The row and the checked arguments of one line.

    Raises:
        Malformed: it is no JSON object with the keys `v`, `command` and `args`.
        UnsupportedVersion: it speaks another version.
        Usage: there is no such command, or it takes other arguments.
    """
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise Malformed("the command is no line of JSON") from None
    if not isinstance(message, dict) or not {"v", "command"} <= message.keys() <= {"v", "command", "args"}:
        raise Malformed("a command is a JSON object with v, command and args")
    if message["v"] != OPERATOR_VERSION:
        raise UnsupportedVersion(f"operators' protocol version {message['v']!r}; this daemon speaks {OPERATOR_VERSION}")
    row = ROWS.get(message["command"]) if isinstance(message["command"], str) else None
    if row is None:
        raise Usage(f"there is no command {message['command']!r}; there are {', '.join(ROWS)}")
    return row, check_args(row, message.get("args") or {})


def check_args(row: OperatorCommand, args: Any) -> dict[str, Any]:
    """The arguments of a command, each of its declared type; optional ones that are left out are None.

    Raises:
        Usage: one is missing, unknown or of the wrong type.
    """
    if not isinstance(args, dict):
        raise Usage(f"the arguments of {row.name} are a JSON object")
    declared = dict(row.args)
    unknown = sorted(args.keys() - declared.keys())
    if unknown:
        raise Usage(f"{row.name} takes no argument {unknown[0]!r}; it takes {', '.join(declared) or 'none'}")
    checked: dict[str, Any] = {}
    for name, declaration in declared.items():
        value = args.get(name)
        if value is None:
            if not declaration.endswith("?"):
                raise Usage(f"{row.name} needs the argument {name!r}")
            checked[name] = None
        else:
            checked[name] = _check_type(row, name, declaration.removesuffix("?"), value)
    return checked


def _check_type(row: OperatorCommand, name: str, kind: str, value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "float" and is_number and 0 < value <= 1e9:
        return float(value)
    expected = {"str": "a string", "bool": "true or false", "float": "a number of seconds above 0"}[kind]
    raise Usage(f"argument {name!r} of {row.name} is {expected}")


def error_line(error: TrtdError) -> dict[str, Any]:
    """The last line of a command that failed."""
    cause = error.cause if isinstance(error, CommandFailed) else error
    body: dict[str, Any] = {
        "code": str(cause.code),
        "message": " ".join(cause.message.split()),
        "retry_after_s": cause.retry_after_s,
    }
    if isinstance(error, CommandFailed):
        body["details"] = error.details
    return {"error": body}


class ControlServer:
    """Serves operators at one unix socket until it is closed."""

    def __init__(
        self,
        path: str,
        handlers: Mapping[str, Handler],
        roles: Callable[[], Roles],
        *,
        ask_timeout_s: float = ASK_TIMEOUT_S,
        write_timeout_s: float = WRITE_TIMEOUT_S,
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._roles = roles
        self._ask_timeout_s = ask_timeout_s
        self._write_timeout_s = write_timeout_s
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Bind the socket, replacing one that a dead daemon left; everybody may connect, the peer's role decides.

        Raises:
            OSError: it cannot be bound.
        """
        Path(self._path).unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(self._path)
            Path(self._path).chmod(0o666)
            self._server = await asyncio.start_unix_server(self._connected, sock=sock, limit=MAX_LINE_BYTES)
        except OSError:
            sock.close()
            raise

    async def close(self) -> None:
        """Stop listening, end what still runs, remove the socket."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            Path(self._path).unlink()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        if len(self._tasks) >= 2 * MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            # Only `close` cancels, at the very end; let through, asyncio's streams would report it as a defect.
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one command, run it, answer. Raises OSError or TimeoutError when the operator is gone or stuck."""
        peer = peer_of(writer.get_extra_info("socket"))

        async def send(line: dict[str, Any]) -> None:
            writer.write(json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n")
            async with asyncio.timeout(self._write_timeout_s):
                await writer.drain()

        async def tell_progress(progress: dict[str, Any]) -> None:
            await send({"progress": progress})

        try:
            row, args = await self._read_command(reader)
            if len(self._tasks) > MAX_CONNECTIONS:
                raise Overloaded(f"{MAX_CONNECTIONS} operators are connected already", retry_after_s=1.0)
            answer = {"ok": await self._run(peer, row, args, tell_progress)}
        except TrtdError as error:
            answer = error_line(error)
        await send(answer)
        writer.write_eof()
        # Closing with unread bytes would take the answer away from the operator again.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while await reader.read(MAX_LINE_BYTES):
                    pass

    async def _read_command(self, reader: asyncio.StreamReader) -> tuple[OperatorCommand, dict[str, Any]]:
        try:
            async with asyncio.timeout(self._ask_timeout_s):
                line = await reader.readline()
        except TimeoutError:
            raise Usage(f"no command came within {self._ask_timeout_s:g} s") from None
        except ValueError:
            raise Malformed(f"the command is longer than {MAX_LINE_BYTES} bytes") from None
        return parse_command(line)

    async def _run(self, peer: Peer, row: OperatorCommand, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Run a command for a peer that may give it; a defect of ours becomes a typed error and a log line."""
        role = self._roles().role_of(peer)
        if role is None or role < row.role:
            log.warning("operator.refused", command=row.name, uid=peer.uid, pid=peer.pid)
            raise NotAllowed(f"uid {peer.uid} may not {row.name}; it needs the role {row.role.name.lower()}")
        told = {name: value for name, value in args.items() if value is not None}
        bound = log.bind(command=row.name, uid=peer.uid, pid=peer.pid, **told)
        try:
            answer = await self._handlers[row.name](args, progress)
        except TrtdError as error:
            cause = error.cause if isinstance(error, CommandFailed) else error
            bound.warning("operator.command_failed", cause=str(cause))
            raise
        except (OSError, TimeoutError, asyncio.CancelledError):
            raise
        except Exception as error:
            bound.error("operator.command_crashed", cause=repr(error), exc_info=True)
            raise Internal(f"{row.name} failed inside the daemon; the log says where") from error
        if row.name != "status":
            bound.info("operator.command_done")
        return answer
