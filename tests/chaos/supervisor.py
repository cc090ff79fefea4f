"""SIGKILL of the supervisor under load: its whole tree goes with it, and nothing is in the way of the next one."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.chaos.figures import Report, spread_ms
from tests.chaos.holdings import left_behind
from tests.chaos.load import PAUSE_S, Load
from tests.chaos.stage import MODELS, stage
from tests.support.daemon import children_of, is_running

DEADLINE_S = 1.0
LAST_REQUESTS = 60
"""To each tenant, once the last daemon serves."""


def tree_of(pid: int) -> set[int]:
    """All descendants of a process."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    ahead = [pid]
    while ahead:
        children = parents.get(ahead.pop(), [])
        found.update(children)
        ahead += children
    return found


def run(kills: int = 50, pause_s: float = PAUSE_S, *, arenas: bool = False) -> Report:
    """Kill, look for survivors, start again in the same directory; the callers' clients stay and ask on.

    Args:
        kills: how many.
        pause_s: of the callers.
        arenas: whether tensors are large enough for shared memory.
    """
    report = Report("supervisor")
    gone_s: list[float] = []
    served_s: list[float] = []
    tree_sizes = set()
    with stage(is_large=arenas) as daemon:
        with Load(daemon, daemon.questions, pause_s=pause_s) as load:
            for number in range(kills):
                pid = daemon.pid
                tree = tree_of(pid) | children_of(pid).keys()
                tree_sizes.add(len(tree))
                killed_at = time.monotonic()
                daemon.send_signal(signal.SIGKILL)
                while left := [child for child in tree if is_running(child)]:
                    if time.monotonic() - killed_at > DEADLINE_S:
                        report.broken.append(f"{len(left)} processes outlived kill {number + 1}")
                        break
                    time.sleep(0.001)
                gone_s.append(time.monotonic() - killed_at)
                daemon.wait()
                started_at = time.monotonic()
                daemon.start()
                load.wait_answered(list(MODELS), started_at)
                served_s.append(time.monotonic() - started_at)
                daemon.wait_ready()
            for tenant in MODELS:
                # The first large answers of a connection come in frames; a short run would end with these.
                load.wait_more(tenant, LAST_REQUESTS)
        report.broken += daemon.account_problems() + left_behind(daemon)
    judgement = load.judge()
    report.broken += judgement.broken() + load.sharing_problems()
    report.figures = {
        "kills": kills,
        **judgement.figures(),
        **load.sharing(),
        "processes_of_a_tree": "/".join(map(str, sorted(tree_sizes))),
        "kill_to_no_process_left": spread_ms(gone_s),
        "start_to_answers_for_all_callers": spread_ms(served_s),
    }
    return report
