"""Host memory limits by cgroup v2, where the daemon's own cgroup was delegated to it.

Each worker life gets a cgroup of its own below ours: memory.max, memory.oom.group, pids.max. Where nothing is
delegated the worker's own watch of its resident memory is what holds, and `trtd status` says so.

systemd delegates with Delegate=memory pids; DelegateSubgroup=supervisor keeps the daemon out of the inner node, which
the kernel demands before controllers can be handed down. Without it the daemon moves itself.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

SUBGROUP = "supervisor"
CONTROLLERS = ("memory", "pids")
MAX_TASKS = 4096
"""Most threads and processes of one worker: far above what a runtime starts, far below what a host has."""


class NotDelegated(Exception):
    """Our cgroup cannot be used for limits; the text says why."""


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """The cgroup of one worker life."""

    path: Path

    def add(self, pid: int) -> None:
        """Put a process, and what it will start, into the cgroup.

        Raises:
            OSError: the kernel refused, or the process is gone.
        """
        (self.path / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def oom_kills(self) -> int:
        """How many of its processes the kernel has ended for lack of memory."""
        with contextlib.suppress(OSError, ValueError):
            for line in (self.path / "memory.events").read_text(encoding="ascii").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
        return 0

    def remove(self) -> None:
        """Remove the empty cgroup; one that is not empty yet stays and is removed at the next start of the daemon."""
        with contextlib.suppress(OSError):
            self.path.rmdir()


@dataclass(frozen=True, slots=True)
class Delegation:
    """A cgroup subtree that is ours to divide."""

    base: Path

    def make(self, name: str, memory_limit_bytes: int) -> WorkerGroup:
        """A new cgroup with a memory limit.

        Args:
            name: unique among the lives of this daemon, without a slash.
            memory_limit_bytes: most memory of all its processes together, page cache included; 0 for no limit.

        Raises:
            OSError: the kernel refused.
        """
        path = self.base / f"worker-{name}"
        path.mkdir()
        try:
            (path / "memory.max").write_text(str(memory_limit_bytes or "max"), encoding="ascii")
            (path / "memory.oom.group").write_text("1", encoding="ascii")
            (path / "pids.max").write_text(str(MAX_TASKS), encoding="ascii")
        except OSError:
            path.rmdir()
            raise
        return WorkerGroup(path)


def own_group(root: Path = Path("/")) -> Path:
    """The directory of the cgroup v2 that this process is in.

    Raises:
        NotDelegated: there is no usable cgroup v2.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise NotDelegated(f"/proc is not readable: {error.strerror}") from None
    relative = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if relative is None:
        raise NotDelegated("this process is in no cgroup v2")
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        if after.split(" ", 1)[0] == "cgroup2":
            fields = before.split(" ")
            mounted, point = fields[3], fields[4]
            below = relative.removeprefix(mounted.rstrip("/")) if relative.startswith(mounted) else relative
            return root / point.lstrip("/") / below.lstrip("/")
    raise NotDelegated("no cgroup v2 is mounted")


def claim(root: Path = Path("/")) -> Delegation:
    """Take our cgroup for limits.

    We move into a leaf, hand the controllers down, and remove what an earlier daemon left.

    Raises:
        NotDelegated: it is not ours to divide; the text says why.
    """
    own = own_group(root)
    base = own.parent if own.name == SUBGROUP else own
    try:
        offered = (base / "cgroup.controllers").read_text(encoding="ascii").split()
    except OSError as error:
        raise NotDelegated(f"{base} is not readable: {error.strerror}") from None
    missing = [name for name in CONTROLLERS if name not in offered]
    if missing:
        raise NotDelegated(f"{base} has no controller {' and '.join(missing)}")
    if not all(os.access(path, os.W_OK) for path in (base, base / "cgroup.procs", base / "cgroup.subtree_control")):
        raise NotDelegated(f"{base} is not writable by uid {os.geteuid()}")
    try:
        if own == base:
            leaf = base / SUBGROUP
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        (base / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS), encoding="ascii")
    except OSError as error:
        raise NotDelegated(f"{base} cannot be divided: {error.strerror}") from None
    for stale in base.glob("worker-*"):
        with contextlib.suppress(OSError):
            stale.rmdir()
    return Delegation(base)
