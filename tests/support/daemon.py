"""The real daemon, owned by a test or a chaos script: its directory, configuration, log, children and end.

    with Daemon({"a": echo()}) as daemon:
        daemon.start()
        daemon.wait_ready()
        with daemon.client("a") as client: ...

Waiting is for events with a deadline. Leaving the block stops the daemon and fails when one of its children survived.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trtd
from tests.support.activation import activated
from trtd.errors import error_from_wire
from trtd.wire import addresses

PATIENCE_S = 30.0
X = {"name": "x", "dtype": "float32", "shape": [None, 4]}


def script(behaviour: str | None = None, *, when: float | None = None, **values: Any) -> dict[str, Any]:
    """A model of the scripted runtime: gives `x` back, and misbehaves as told (see `trtd.runtime.scripted`)."""
    content: dict[str, Any] = {"inputs": [X], **values}
    if behaviour is not None:
        content["behaviour"] = behaviour
    if when is not None:
        content["when"] = {"value": when}
    return content


def tenant(model: Mapping[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """A tenant's table with one scripted model `echo`."""
    return {"runtime": "scripted", "models": {"echo": {"script": dict(model or script())}}, **settings}


def toml(table: Mapping[str, Any], path: str = "") -> str:
    """A table as TOML; its scalars and lists look as in JSON."""
    lines = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            name = f"{path}.{key}" if path else key
            lines += [f"[{name}]", toml(value, name)]
    return "\n".join(lines)


def is_running(pid: int) -> bool:
    """Whether a process lives; one that only waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def children_of(pid: int) -> dict[int, str]:
    """Kinds of all live processes that were started as children of this daemon, by pid, wherever they hang now."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        is_child = b"--parent" in words and words[words.index(b"--parent") + 1] == str(pid).encode()
        if is_child and is_running(int(entry.name)):
            found[int(entry.name)] = next(word.decode() for word in words if word.startswith(b"trtd."))
    return found


def wait_until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The first true value of the condition."""
    until = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"{what} did not come within {patience_s:g} s")
        time.sleep(0.01)


class OperatorError(Exception):
    """A typed error of the operators' socket, with the whole line."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code = error["code"]
        self.error = error_from_wire(error["code"], error["message"])
        self.details = error.get("details", {})


class Daemon:
    """A daemon in a directory of its own, which vanishes with it."""

    def __init__(self, tenants: Mapping[str, Any] | None = None, **sections: Any) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="trtd-"))
        self.runtime_dir = self.directory / "run"
        self.config_file = self.directory / "trtd.toml"
        self.log_file = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._pids: list[int] = []
        self.configure(tenants or {"a": tenant()}, **sections)

    # The life of the daemon

    def configure(self, tenants: Mapping[str, Any], **sections: Any) -> None:
        """Write the configuration; a running daemon reads it at its next reload."""
        tables = json.loads(json.dumps(tenants))
        for name, table in tables.items():
            for model_name, model in table["models"].items():
                if "script" in model:
                    path = self.directory / f"{name}.{model_name}.json"
                    content = json.dumps(model.pop("script"))
                    # Writing it again would make it a new file, which replaces the workers.
                    if not path.exists() or path.read_text(encoding="utf-8") != content:
                        path.write_text(content, encoding="utf-8")
                    model["path"] = str(path)
        daemon = {"runtime_dir": str(self.runtime_dir), **sections.pop("daemon", {})}
        config = {"version": 1, "daemon": daemon, **sections, "tenants": tables}
        # Never a half of it for a reload that is under way.
        fresh = self.config_file.with_suffix(".new")
        fresh.write_text(toml(config), encoding="utf-8")
        fresh.replace(self.config_file)

    def start(
        self,
        *sockets: socket.socket,
        environ: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        **more: str,
    ) -> Self:
        """Start the daemon without waiting for anything; listening sockets are handed over as systemd does it.

        Args:
            sockets: see above.
            environ: of the daemon; None for this process's own.
            prefix: a program, and its arguments, that turns into the daemon.
            more: variables beside these.
        """
        serve = [sys.executable, "-m", "trtd.cli.main", "serve", "--config", str(self.config_file)]
        argv, fds = activated([*prefix, *serve], sockets)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**(os.environ if environ is None else environ), **more},
            )
        self._pids.append(self.process.pid)
        return self

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self.process is not None, "the daemon was not started"
        return self.process.pid

    def send_signal(self, number: int) -> None:
        """Send a signal to the supervisor."""
        os.kill(self.pid, number)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """The exit code of the daemon, once it has ended."""
        assert self.process is not None
        return self.process.wait(patience_s)

    def stop(self, patience_s: float = PATIENCE_S) -> int:
        """SIGTERM, and the exit code."""
        self.send_signal(signal.SIGTERM)
        return self.wait(patience_s)

    def close(self) -> None:
        """End what is left, and fail when a child survived its daemon."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
                self.process.wait(PATIENCE_S)
            for pid in self._pids:
                self.expect_no_children(pid)
        finally:
            for pid in self._pids:
                for survivor in children_of(pid):
                    os.kill(survivor, signal.SIGKILL)
            shutil.rmtree(self.directory, ignore_errors=True)

    def expect_no_children(self, pid: int | None = None, patience_s: float = 1.0) -> None:
        """Fail when a child of the daemon lives on for longer than this."""
        of = pid or self.pid
        wait_until(lambda: not children_of(of), f"the end of the last child of {of}", patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self.log_file.exists():
            tail = self.log_file.read_text(encoding="utf-8", errors="replace")[-6000:]
            error.add_note(f"--- end of the daemon's log\n{tail}")
        self.close()

    # Its log

    def events(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Log lines so far, of one event and with these fields."""
        return [line for line in self._lines() if event in (None, line.get("event")) and fields.items() <= line.items()]

    def wait_event(self, event: str, count: int = 1, patience_s: float = PATIENCE_S, **fields: Any) -> dict[str, Any]:
        """The n-th log line of this event with these fields."""
        what = f"log event {event} {fields} (number {count})"
        found = wait_until(lambda: self.events(event, **fields)[count - 1 :], what, patience_s)
        return dict(found[0])

    def _lines(self) -> Iterator[dict[str, Any]]:
        for line in self.log_file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                parsed = json.loads(line)
            except ValueError:
                continue
            if isinstance(parsed, dict):
                yield parsed

    # Its operators' socket

    def call(self, command: str, patience_s: float = PATIENCE_S, **args: Any) -> dict[str, Any]:
        """Give a command and return its answer; `OperatorError` when it is refused."""
        *_, last = self.ask({"v": 1, "command": command, "args": args}, patience_s)
        if "error" in last:
            raise OperatorError(last["error"])
        return dict(last["ok"])

    def ask(self, message: Any, patience_s: float = PATIENCE_S) -> list[dict[str, Any]]:
        """All lines that the daemon says to one line: bytes as they are, anything else as JSON."""
        line = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
        with self.operator(patience_s) as sock:
            sock.sendall(line)
            with sock.makefile("rb") as answer:
                return [json.loads(part) for part in answer]

    def operator(self, patience_s: float = PATIENCE_S) -> socket.socket:
        """A raw connection to the operators' socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(patience_s)
        try:
            sock.connect(addresses.operator_path(str(self.runtime_dir)))
        except OSError:
            sock.close()
            raise
        return sock

    def status(self) -> dict[str, Any]:
        """The status record."""
        return self.call("status")

    def tenant(self, name: str) -> dict[str, Any]:
        """The status of one tenant."""
        return next(dict(entry) for entry in self.status()["tenants"] if entry["name"] == name)

    def worker(self, name: str, replica: int = 0) -> dict[str, Any]:
        """The status of one worker."""
        return dict(self.tenant(name)["workers"][replica])

    def wait_listening(self) -> None:
        """Wait until the operators' socket answers."""

        def is_listening() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}"
            try:
                self.operator().close()
            except OSError:
                return False
            return True

        wait_until(is_listening, "the operators' socket")

    def wait_ready(self, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The status once the router and all workers of all tenants are ready."""
        self.wait_listening()
        return self.wait_status(lambda status: status["health"] == "ready", "all tenants ready", patience_s)

    def wait_status(
        self, condition: Callable[[dict[str, Any]], bool], what: str, patience_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """The first status for which the condition holds."""

        def status_if_true() -> dict[str, Any] | None:
            status = self.status()
            return status if condition(status) else None

        found: dict[str, Any] = wait_until(status_if_true, what, patience_s)
        return found

    # What goes wrong with it

    def kill_worker(self, name: str, replica: int = 0, number: int = signal.SIGKILL) -> int:
        """Send a signal to a live worker; its generation."""
        worker = self.worker(name, replica)
        os.kill(worker["pid"], number)
        return int(worker["generation"])

    def kill_router(self, number: int = signal.SIGKILL) -> int:
        """Send a signal to the live router; its generation."""
        router = self.status()["router"]
        os.kill(router["pid"], number)
        return int(router["generation"])

    # Its clients

    def address(self, name: str = "a") -> str:
        """Where clients of a tenant connect."""
        return addresses.tenant_address(str(self.runtime_dir), name)

    def client(self, name: str = "a", **options: Any) -> trtd.Client:
        """A client of a tenant."""
        return trtd.Client(self.address(name), **options)
