"""What the kernel says of a process: whether it is stopped, and whether it gets a processor when it wants one."""

from __future__ import annotations

from pathlib import Path

from trtd.core.patience import Sight, ThreadSight

PROC = Path("/proc")
STOPPED = frozenset("Tt")
"""By a signal, or by who traces it."""
WANTS_PROCESSOR = "R"


def look_at(pid: int, proc: Path = PROC) -> Sight | None:
    """The process as it is now (proc(5)); None where the kernel does not tell."""
    tasks = proc / str(pid) / "task"
    try:
        states = {int(task.name): _state(task) for task in tasks.iterdir()}
    except OSError:
        return None
    if pid not in states:
        return None
    threads = {}
    for thread, state in states.items():
        times = _times(tasks / str(thread))
        if times is not None:
            threads[thread] = ThreadSight(state == WANTS_PROCESSOR, *times)
    return Sight(states[pid] in STOPPED, threads)


def _state(thread: Path) -> str:
    try:
        # The name in parentheses may hold anything.
        return (thread / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _times(thread: Path) -> tuple[float, float] | None:
    """Seconds on a processor and seconds of waiting for one; kernels without scheduler statistics have no such file."""
    try:
        ran, waited, _ = (thread / "schedstat").read_text(encoding="ascii").split()
        return int(ran) / 1e9, int(waited) / 1e9
    except (OSError, ValueError):
        return None
