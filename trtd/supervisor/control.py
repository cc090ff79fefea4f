"""The operators' socket: who may connect, one command per connection, typed one-line errors, nobody waits for anybody.

The peer is looked at when it connects: strangers, viewers and operators have places of their own, so that nobody who
may do less keeps out who may do more.

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
from trtd.child.doors import Door
from trtd.core.places import Places
from trtd.errors import Internal, Malformed, NotAllowed, Overloaded, TrtdError, UnsupportedVersion, Usage
from trtd.supervisor.peers import Peer, Roles, peer_of
from trtd.wire.operator import MAX_LINE_BYTES, OPERATOR_COMMANDS, OPERATOR_VERSION, OperatorCommand, Role

Progress = Callable[[dict[str, Any]], Awaitable[None]]
Handler = Callable[[dict[str, Any], Progress], Awaitable[dict[str, Any]]]
"""Takes the checked arguments, tells how it goes, and returns the answer or raises a `TrtdError`."""

ASK_TIMEOUT_S = 10.0
"""Patience with an operator who connected and says nothing."""
STRANGER_TIMEOUT_S = 2.0
"""The same with one who may do nothing."""
WRITE_TIMEOUT_S = 10.0
"""Patience with an operator who does not read."""
LINGER_S = 1.0
"""Patience with an operator who has his answer and goes on talking."""
PLACES: dict[Role | None, tuple[int, int]] = {None: (16, 4), Role.VIEWER: (32, 8), Role.OPERATOR: (64, 48)}
"""Connections at a time by role, of all and of one user. Further ones are told so at once, and closed."""
MAX_ACCEPTED = 16
"""Connections taken in one turn of the loop."""
ACCEPT_PAUSE_S = 0.5
"""How long nobody is let in after there was no descriptor for a connection."""
SOCKET_MODE = 0o666
"""Everybody may connect; the peer's role decides."""

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
    if cause.hint is not None:
        body["hint"] = cause.hint
    if isinstance(error, CommandFailed):
        body["details"] = error.details
    return {"error": body}


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"


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
        self._door = Door(Path(path), SOCKET_MODE)
        self._handlers = handlers
        self._roles = roles
        self._ask_timeout_s = ask_timeout_s
        self._write_timeout_s = write_timeout_s
        self._places = {role: Places(*bounds) for role, bounds in PLACES.items()}
        self._tasks: set[asyncio.Task[None]] = set()
        self._limit = observe.RateLimit(1.0)
        self._is_paused = False

    async def start(self) -> None:
        """Bind the socket, replacing one that a dead daemon left.

        Raises:
            OSError: it cannot be bound.
        """
        self._open()

    def _open(self) -> None:
        self._door.open()
        asyncio.get_running_loop().add_reader(self._door.fileno(), self._accept)

    def look_after(self) -> None:
        """Bind the socket again where its path was taken away.

        Raises:
            OSError: it cannot be bound again now.
        """
        if self._door.is_in_place():
            return
        if self._door.is_open:
            log.error("operator.socket_lost", path=str(self._door.path))
            asyncio.get_running_loop().remove_reader(self._door.fileno())
        self._open()
        log.info("operator.socket_reopened", path=str(self._door.path))

    async def close(self) -> None:
        """Stop listening, end what still runs, remove the socket."""
        if self._door.is_open:
            asyncio.get_running_loop().remove_reader(self._door.fileno())
            self._door.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(MAX_ACCEPTED):
            try:
                sock = self._door.accept()
            except OSError as error:
                self._pause(error)
                return
            if sock is None:
                return
            self._admit(sock)

    def _pause(self, error: OSError) -> None:
        """Let nobody in for a moment: who waits would wake us again at once."""
        loop, fd = asyncio.get_running_loop(), self._door.fileno()
        loop.remove_reader(fd)
        held_back = self._limit.take("accept", loop.time())
        if held_back is not None:
            log.warning("operator.accept_failed", cause=str(error), held_back=held_back)
        loop.call_later(ACCEPT_PAUSE_S, self._go_on, fd)

    def _go_on(self, fd: int) -> None:
        if self._door.fileno() == fd:
            asyncio.get_running_loop().add_reader(fd, self._accept)

    def _admit(self, sock: socket.socket) -> None:
        """Serve a connection if there is a place for its peer; otherwise it is told so."""
        loop = asyncio.get_running_loop()
        try:
            peer = peer_of(sock)
        except OSError:
            sock.close()
            return
        role = self._roles().role_of(peer)
        problem = self._places[role].take(peer.uid)
        if problem is not None:
            with sock, contextlib.suppress(OSError):
                sock.setblocking(False)
                sock.send(_line(error_line(Overloaded(problem, retry_after_s=1.0))))
            held_back = self._limit.take(f"uid {peer.uid}", loop.time())
            if held_back is not None:
                log.warning("operator.connection_refused", uid=peer.uid, cause=problem, held_back=held_back)
            return
        task = loop.create_task(self._attend(sock, peer, role))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attend(self, sock: socket.socket, peer: Peer, role: Role | None) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MAX_LINE_BYTES)
            try:
                await self._serve(reader, writer, peer, role)
            except (OSError, TimeoutError, asyncio.CancelledError):
                # Only `close` cancels, at the very end; let through, asyncio's streams would report it as a defect.
                writer.transport.abort()
            finally:
                writer.close()
        except OSError:
            sock.close()
        finally:
            self._places[role].leave(peer.uid)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer, role: Role | None
    ) -> None:
        """Read one command, run it, answer. Raises OSError or TimeoutError when the operator is gone or stuck."""

        async def send(line: dict[str, Any]) -> None:
            writer.write(_line(line))
            async with asyncio.timeout(self._write_timeout_s):
                await writer.drain()

        async def tell_progress(progress: dict[str, Any]) -> None:
            await send({"progress": progress})

        try:
            patience_s = self._ask_timeout_s if role is not None else min(self._ask_timeout_s, STRANGER_TIMEOUT_S)
            row, args = await self._read_command(reader, patience_s)
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

    async def _read_command(
        self, reader: asyncio.StreamReader, patience_s: float
    ) -> tuple[OperatorCommand, dict[str, Any]]:
        try:
            async with asyncio.timeout(patience_s):
                line = await reader.readline()
        except TimeoutError:
            raise Usage(f"no command came within {patience_s:g} s") from None
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
