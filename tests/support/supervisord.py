"""A real supervisord 4.3 with the configuration that we ship, in a directory of its own, watching over a real daemon.

Used as:

with Supervisord(daemon) as host:
    host.start()
    host.call("trtd.status")
"""

from __future__ import annotations

import configparser
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from tests.support.daemon import PATIENCE_S, Daemon, is_running, wait_until

SHIPPED = Path(__file__).parents[2] / "etc" / "supervisord.conf"
PLUGIN = "rpcinterface:trtd"


def shipped() -> configparser.RawConfigParser:
    """The configuration as it is shipped."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    parser.read(SHIPPED, encoding="utf-8")
    return parser


class Supervisord:
    """supervisord as a test owns it: paths, user and start time are the test's, all else is what we ship.

    Args:
        daemon: what it shall keep up; its configuration has to be written, and it is not started otherwise.
        has_plugin: False takes our XML-RPC interface out.
        has_trtd: False leaves trtd unstarted, so that its log does not keep supervisord awake.
    """

    def __init__(self, daemon: Daemon, *, has_plugin: bool = True, has_trtd: bool = True) -> None:
        self.daemon = daemon
        self.events_log = daemon.directory / "events.log"
        self.births = daemon.directory / "births"
        self.process: subprocess.Popen[bytes] | None = None
        self._socket = daemon.directory / "supervisor.sock"
        self._config = daemon.directory / "supervisord.conf"
        with self._config.open("w", encoding="utf-8") as file:
            self._parser(has_plugin=has_plugin, has_trtd=has_trtd).write(file)

    def _parser(self, *, has_plugin: bool, has_trtd: bool) -> configparser.RawConfigParser:
        parser = shipped()
        here = self.daemon.directory
        python = f"{sys.executable} -m"
        changed = {
            "unix_http_server": {"file": self._socket},
            "supervisord": {"logfile": here / "supervisord.log", "pidfile": here / "pid", "nodaemon": "true"},
            PLUGIN: {"runtime_dir": self.daemon.runtime_dir},
            "program:trtd": {
                "command": f"{python} trtd.cli.main serve --config {self.daemon.config_file}",
                "directory": here,
                "startsecs": 1,
                "autostart": has_trtd,
                "stderr_logfile": self.daemon.log_file,
                "environment": f'HOME="{here}"',
            },
            "eventlistener:trtd-events": {
                "command": f"{python} trtd.hosts.supervisord_events",
                "stderr_logfile": self.events_log,
            },
            # Tells when it was born, for the time of a respawn.
            "program:newborn": {
                "command": f"sh -c 'echo born >> {self.births}; exec sleep 1000'",
                "autorestart": "true",
                "startsecs": 0,
                "autostart": "false",
            },
        }
        for section, keys in changed.items():
            if not parser.has_section(section):
                parser.add_section(section)
            for key, value in keys.items():
                parser.set(section, key, str(value))
        for section in ("supervisord", "program:trtd"):
            parser.remove_option(section, "user")
        parser.remove_section("program:trtd-runtime-dir")
        if not has_plugin:
            parser.remove_section(PLUGIN)
        return parser

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of XML-RPC over a connection of its own."""
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        with ServerProxy("http://unused", transport) as proxy:
            return getattr(proxy, method)(*args)

    def start(self) -> Self:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        wait_until(self.is_answering, "supervisord")
        return self

    def is_answering(self) -> bool:
        """Whether XML-RPC is served."""
        assert self.process is not None
        assert self.process.poll() is None, (self.daemon.directory / "supervisord.log").read_text(encoding="utf-8")
        try:
            return self.call("supervisor.getState")["statename"] == "RUNNING"
        except (OSError, Fault):
            return False

    def info(self, name: str) -> dict[str, Any]:
        """What supervisord says of a process."""
        return dict(self.call("supervisor.getProcessInfo", name))

    def respawn_s(self, count: int) -> list[float]:
        """Times from SIGKILL of a tiny child until its successor's first deed."""
        self.call("supervisor.startProcess", "newborn")
        times = []
        for number in range(1, count + 1):
            wait_until(lambda number=number: self._births() == number, f"birth {number}")
            pid = wait_until(lambda: self.info("newborn")["pid"], "a pid")
            # Asking keeps supervisord's loop turning. Its next poll has to have begun, or the time is flattered.
            time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)
            killed_at = time.monotonic()
            wait_until(lambda number=number: self._births() == number + 1, "the successor")
            times.append(time.monotonic() - killed_at)
        self.call("supervisor.stopProcess", "newborn")
        return times

    def _births(self) -> int:
        return len(self.births.read_text(encoding="utf-8").splitlines()) if self.births.exists() else 0

    def stop(self) -> None:
        """SIGTERM, and wait until it has stopped everything."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)
            assert not self._survivors(), f"processes outlived supervisord: {self._survivors()}"

    def _survivors(self) -> dict[int, str]:
        """Live processes that have our directory on their command line."""
        mark = str(self.daemon.directory).encode()
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
                if mark in command and is_running(int(entry.name)):
                    found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note((self.daemon.directory / "supervisord.log").read_text(encoding="utf-8")[-4000:])
        try:
            self.stop()
        finally:
            for pid in self._survivors():
                os.kill(pid, signal.SIGKILL)
            if self.process is not None:
                self.process.wait(PATIENCE_S)


def milliseconds(times: list[float]) -> str:
    """Least, median and most."""
    return f"min {min(times) * 1e3:.1f}, p50 {statistics.median(times) * 1e3:.1f}, max {max(times) * 1e3:.1f} ms"
