"""A systemd of its own: booted in namespaces, driven by systemctl, read by journalctl, gone without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.daemon import toml, wait_until

REPOSITORY = Path(__file__).parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
BOOT_PATIENCE_S = 60.0
PATIENCE_S = 90.0
SERVICE = "trtd.service"


class NotPossible(Exception):
    """This host cannot boot one; the text says why."""


def cgroup2_root() -> Path:
    """Where the host's cgroup v2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 "):
            return Path(fields.split()[4])
    raise NotPossible("no cgroup v2 is mounted")


def _hand_down_controllers(group: Path) -> None:
    """Let groups below have the controllers that limit workers, where this host has them in cgroup v2 at all."""
    for controller in ("memory", "pids"):
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")


class Machine:
    """The booted system.

    Attributes:
        folder: holds its root and its console.
        pid: of its systemd, as this host numbers it.
        since: journal time from which `journal` reads; `mark` moves it.
    """

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise NotPossible("only root may make the namespaces")
        for program in ("unshare", "nsenter", "systemd-sysusers", "journalctl"):
            if shutil.which(program) is None:
                raise NotPossible(f"there is no {program}")
        if not SYSTEMD.exists():
            raise NotPossible(f"there is no {SYSTEMD}")
        self.folder = Path(tempfile.mkdtemp(prefix="trtd-systemd-"))
        self.pid = 0
        self.since = "-1000"
        self._cursor = ""
        self._group = cgroup2_root() / self.folder.name
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self) -> Self:
        """Start it, wait until its manager and journal answer, and make the directories that our package asks for."""
        root = self.folder / "root"
        root.mkdir()
        self._group.mkdir()
        _hand_down_controllers(self._group.parent)
        boot = [
            str(Path(__file__).with_name("boot")),
            *(str(root), str(REPOSITORY), sys.base_prefix, sysconfig.get_path("purelib")),
        ]
        namespaces = ["--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc"]
        # Its group holds nothing but itself: only then it can divide it.
        enter = f'echo 0 > {self._group}/cgroup.procs; exec unshare --cgroup "$@"'
        with (self.folder / "console").open("wb") as console:
            self._process = subprocess.Popen(
                ["unshare", *namespaces, "sh", "-c", enter, "sh", *boot],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self.pid = int(wait_until(lambda: children.read_text(encoding="ascii").split(), "the first process")[0])
        try:
            wait_until(self._is_up, "the end of the boot", BOOT_PATIENCE_S)
        except AssertionError as error:
            error.add_note((self.folder / "console").read_text(encoding="utf-8", errors="replace"))
            raise
        self.run("systemd-tmpfiles", "--create", "/opt/trtd/systemd/tmpfiles.d/trtd.conf")
        return self

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "systemd did not start"
        return self.run("systemctl", "is-active", "systemd-journald.service", check=False).strip() == "active"

    # Commands inside

    def argv(self, *command: str) -> list[str]:
        """A command line that runs inside."""
        return ["nsenter", "--target", str(self.pid), "--all", "--root", "--wd", *command]

    def run(self, *command: str, check: bool = True, timeout_s: float = PATIENCE_S) -> str:
        """The output of a command inside."""
        outcome = self.attempt(*command, timeout_s=timeout_s)
        if check and outcome.returncode != 0:
            raise AssertionError(f"{' '.join(command)} ended with {outcome.returncode}: {outcome.stdout}")
        return outcome.stdout

    def attempt(self, *command: str, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Exit code and output of a command inside, whatever they are."""
        return subprocess.run(
            self.argv(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
            env={"PATH": "/usr/bin:/usr/sbin", "LC_ALL": "C", "PAGER": "cat", "SYSTEMD_COLORS": "0"},
        )

    def systemctl(self, *arguments: str) -> str:
        """What systemctl says."""
        return self.run("systemctl", "--no-pager", *arguments)

    def show(self, *properties: str, unit: str = SERVICE) -> dict[str, str]:
        """Properties of a unit."""
        lines = self.systemctl("show", unit, *(f"--property={name}" for name in properties)).splitlines()
        return dict(line.split("=", 1) for line in lines if line)

    def main_pid(self) -> int:
        """Of the service, as the machine numbers it; 0 when it does not run."""
        return int(self.show("MainPID")["MainPID"])

    def wait_show(self, condition: Callable[[dict[str, str]], bool], what: str, *properties: str) -> dict[str, str]:
        """The service's properties once they satisfy the condition."""

        def shown() -> dict[str, str] | None:
            found = self.show(*properties)
            return found if condition(found) else None

        found: dict[str, str] = wait_until(shown, what, PATIENCE_S)
        return found

    # The journal

    def mark(self) -> None:
        """Let `journal` begin here."""
        self.run("journalctl", "--sync", check=False)
        tail = self.run("journalctl", "--quiet", "--lines=0", "--show-cursor", check=False)
        self._cursor = tail.rpartition("cursor: ")[2].strip()

    def journal(self, unit: str = SERVICE, *options: str) -> list[dict[str, Any]]:
        """Entries about a unit since the last `mark`, as the journal has them."""
        since = [f"--after-cursor={self._cursor}"] if self._cursor else []
        text = self.run("journalctl", "--quiet", "--output=json", f"--unit={unit}", *since, *options, check=False)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def messages(self, unit: str = SERVICE, *options: str) -> list[str]:
        """The texts of these entries."""
        return [str(entry.get("MESSAGE")) for entry in self.journal(unit, *options)]

    def events(self, event: str) -> list[dict[str, Any]]:
        """Our own events among these entries, by name."""
        found = []
        for text in self.messages():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and line.get("event") == event:
                found.append(line)
        return found

    def wait_event(self, event: str, **fields: Any) -> dict[str, Any]:
        """The first event of this name and with these fields since the last `mark`."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.events(event) if fields.items() <= line.items()]

        return dict(wait_until(found, f"{event} {fields} in the journal", PATIENCE_S)[0])

    def wait_message(self, part: str, unit: str = SERVICE) -> str:
        """The first entry since the last `mark` that contains the text."""
        return str(wait_until(lambda: [m for m in self.messages(unit) if part in m], f"{part!r} in the journal")[0])

    # Files inside

    def path(self, path: str) -> Path:
        """A file inside, as this host sees it."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)

    def configure(self, tenants: Mapping[str, Any], **sections: Any) -> None:
        """Write the daemon's configuration, with the scripts of scripted models beside it."""
        tables = json.loads(json.dumps(tenants))
        for name, table in tables.items():
            for model in table["models"].values():
                if "script" in model:
                    model["path"] = f"/etc/trtd/{name}.json"
                    self._write_if_new(model["path"], json.dumps(model.pop("script")))
        self.write("/etc/trtd/trtd.toml", toml({"version": 1, **sections, "tenants": tables}))

    def _write_if_new(self, path: str, text: str) -> None:
        # Writing it again would make it a new file, which replaces the workers.
        if not self.path(path).exists() or self.path(path).read_text(encoding="utf-8") != text:
            self.write(path, text)

    def status(self) -> dict[str, Any]:
        """The daemon's status record."""
        outcome = self.attempt("trtd", "status", "--json")
        record: dict[str, Any] = json.loads(outcome.stdout)
        return record

    # The end

    def close(self) -> None:
        """End it with everything in it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
        until = time.monotonic() + PATIENCE_S
        while self._group.exists() and time.monotonic() < until:
            for path in sorted(self._group.rglob("*"), reverse=True):
                if path.is_dir():
                    _remove(path)
            _remove(self._group)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _remove(group: Path) -> None:
    try:
        group.rmdir()
    except OSError:
        time.sleep(0.01)
