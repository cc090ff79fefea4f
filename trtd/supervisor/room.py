"""Whether host memory has room for a second worker beside the one that serves, as far as that can be known beforehand.

What is free is what the host calls available, and what each cgroup above us leaves below its limit once it has let go
of its caches. What a successor takes is what the worker that it replaces has now: the next version of a model is seldom
much smaller, and one that is asked for where memory is that short had better stop the old one first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from trtd.errors import OutOfMemory
from trtd.supervisor.cgroup import NotDelegated, own_group

MIB = 1024**2


def free_bytes(root: Path = Path("/")) -> int | None:
    """Host memory that one process more could take here, swap included; None where nobody tells.

    Args:
        root: of the file system that /proc and /sys are looked for in.
    """
    known = [free for free in (_host_free(root), *_groups_free(root)) if free is not None]
    return min(known, default=None)


def require(tenant: str, need_bytes: int, free: int | None) -> None:
    """Refuse a successor for which there is no room.

    Args:
        tenant: whose worker it is to be.
        need_bytes: what it will take; 0 where that is not known.
        free: as `free_bytes` says.

    Raises:
        trtd.errors.OutOfMemory: it does not fit; the text says what to do.
    """
    if free is not None and need_bytes > free:
        raise OutOfMemory(
            f"no memory for two: the worker that serves has {need_bytes // MIB} MiB, {free // MIB} MiB are free;"
            f' nothing was stopped, and tenants.{tenant}.replace = "stop-first" needs no second one',
            hint="",
        )


def _host_free(root: Path) -> int | None:
    found = _table(root / "proc/meminfo")
    if "MemAvailable" not in found:
        return None
    return (found["MemAvailable"] + found.get("SwapFree", 0)) * 1024


def _groups_free(root: Path) -> Iterator[int | None]:
    """What each cgroup leaves, from ours up."""
    try:
        group = own_group(root)
    except NotDelegated:
        return
    while (group / "cgroup.controllers").exists():
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            caches = _table(group / "memory.stat")
            reclaimable = caches.get("inactive_file", 0) + caches.get("active_file", 0)
            swap, swapped = _number(group / "memory.swap.max"), _number(group / "memory.swap.current")
            room_in_swap = 0 if swap is None or swapped is None else max(0, swap - swapped)
            yield max(0, limit - used) + reclaimable + room_in_swap
        group = group.parent


def _number(path: Path) -> int | None:
    """The number in a file; None for `max`, and where there is none."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text(encoding="ascii"))
    return None


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number, as the kernel writes them."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="ascii").splitlines():
            words = line.replace(":", " ").split()
            if len(words) > 1 and words[1].isdigit():
                found[words[0]] = int(words[1])
    return found
