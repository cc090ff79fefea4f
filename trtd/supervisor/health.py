"""The HTTP child: its listening socket, its process, and the answers to its questions (see `trtd.wire.health`).

The socket is bound here, so that a wrong address is told at the start, and kept through the child's restarts. No byte
of HTTP is read in this process. The child holds nothing, so it is simply started again, at a growing distance; one that
falls silent is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trtd import observe
from trtd.child.doors import Identity, identity_of, is_answered, require_socket
from trtd.core.restarts import RestartPolicy, backoff_s
from trtd.supervisor.aside import Aside
from trtd.supervisor.loop import Supervisor
from trtd.supervisor.spawn import child_environment
from trtd.wire.health import ASK_BEAT, ASK_METRICS, ASK_STATUS, MAX_QUESTION_BYTES

BACKLOG = 128
SILENCE_S = 10.0
"""A child that asks nothing for so long, not even a beat, is ended."""
WRITE_TIMEOUT_S = 10.0
POLICY = RestartPolicy(base_s=0.1, cap_s=5.0, healthy_after_s=10.0)
UNIX_PREFIX = "unix:"

log = observe.get_logger()


def bind(listen: str) -> socket.socket:
    """The listening socket of an address: `HOST:PORT`, `[HOST]:PORT`, or `unix:` and a path.

    Everybody on this host may connect; a unix socket in a directory of its own keeps some out.

    Raises:
        OSError: the address cannot be bound.
    """
    if listen.startswith(UNIX_PREFIX):
        path = listen.removeprefix(UNIX_PREFIX)
        _make_room(Path(path))
        sock = socket.socket(socket.AF_UNIX)
        address: Any = path
    else:
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address = (host, int(port))
    try:
        sock.bind(address)
        if sock.family == socket.AF_UNIX:
            Path(address).chmod(0o666)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _make_room(path: Path) -> None:
    """Take away the socket of a dead process.

    Raises:
        OSError: something else lies there.
    """
    require_socket(path)
    if is_answered(path):
        raise OSError(errno.EADDRINUSE, f"another process listens at {path}")
    path.unlink(missing_ok=True)


class HealthChild:
    """Keeps the HTTP child up until it is closed; without an address it does nothing."""

    def __init__(self, listen: str, supervisor: Supervisor, environ: Mapping[str, str]) -> None:
        self._listen = listen
        self._supervisor = supervisor
        self._environ = environ
        self._path = Path(listen.removeprefix(UNIX_PREFIX)) if listen.startswith(UNIX_PREFIX) else None
        self._identity: Identity | None = None
        self._listener: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen, and start the child.

        Raises:
            OSError: the address cannot be bound.
        """
        if not self._listen:
            return
        self._bind()
        self._keeper = asyncio.get_running_loop().create_task(self._keep_up())
        log.info("health.listening", address=self._listen)

    def _bind(self) -> None:
        self._listener = bind(self._listen)
        self._identity = identity_of(self._path) if self._path is not None else None

    def look_after(self) -> None:
        """Bind the unix socket again where its path was taken away, and replace the child, which has the lost one.

        Raises:
            OSError: it cannot be bound again now.
        """
        if self._path is None or self._keeper is None:
            return
        if self._identity is not None and identity_of(self._path) == self._identity:
            return
        former = self._listener
        if self._identity is not None:
            self._identity = None
            log.error("health.socket_lost", path=str(self._path))
        self._bind()
        if former is not None:
            former.close()
        if self._child is not None:
            self._child.kill()
        log.info("health.socket_reopened", path=str(self._path))

    async def close(self) -> None:
        """End the child and stop listening."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            if self._path is not None and identity_of(self._path) == self._identity:
                with contextlib.suppress(OSError):
                    self._path.unlink()

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            try:
                cause = await self._live()
            except OSError as error:
                cause = error.strerror or str(error)
            failures = 1 if loop.time() - began > POLICY.healthy_after_s else failures + 1
            log.warning("health.exited", cause=cause, failures=failures)
            await asyncio.sleep(backoff_s(POLICY, failures, random.random()))  # noqa: S311 - jitter

    async def _live(self) -> str:
        """One life of the child; why it ended.

        Raises:
            OSError: it could not be started.
        """
        assert self._listener is not None  # noqa: S101 - `start` came first
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                fds = (self._listener.fileno(), theirs.fileno())
                child = subprocess.Popen(
                    [
                        sys.executable, "-P", "-m", "trtd.health.main",
                        "--listener", str(fds[0]), "--link", str(fds[1]), "--parent", str(os.getpid()),
                    ],
                    env=child_environment(self._environ, threads=1),
                    pass_fds=fds,
                    process_group=0,
                    stdin=subprocess.DEVNULL,
                )  # fmt: skip
        except OSError:
            ours.close()
            raise
        self._child = child
        self._supervisor.processes.spare(child.pid)
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=MAX_QUESTION_BYTES)
            try:
                return await self._answer(reader, writer)
            finally:
                writer.close()
        finally:
            self._child = None
            await _end(child)
            self._supervisor.processes.spare_no_more(child.pid)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Answer the child's questions until it is gone; why that was."""
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    line = await reader.readline()
                record = self._record(line) if line else None
                if record is None:
                    return "ended by itself" if not line else "asked what nobody understands"
                writer.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await writer.drain()
            except TimeoutError:
                return "fell silent"
            except (OSError, ValueError) as error:
                return str(error)

    def _record(self, line: bytes) -> Mapping[str, Any] | None:
        question = json.loads(line)
        answers: dict[str, Callable[[], Mapping[str, Any]]] = {
            ASK_BEAT: dict,
            ASK_STATUS: self._supervisor.status,
            ASK_METRICS: self._supervisor.metrics,
        }
        word = question.get("ask") if isinstance(question, dict) else None
        return answers[word]() if isinstance(word, str) and word in answers else None


async def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child's group and reap the child."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await Aside(child.wait).result()
