"""Very many clients of one tenant that come, use shared memory and go, and clients killed at random moments.

What is counted in the end is what the kernel knows: descriptors, mappings and memfds of the router, of the worker and
of the processes in which the clients lived.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.chaos.figures import Report
from tests.chaos.holdings import held, kept, wait_until_empty
from tests.chaos.load import Load
from tests.chaos.stage import stage
from tests.chaos.visitors import TARGET, apart, ask_once, kill_clients, target, together, visit

PAUSE_S = 0.02
"""Of the other tenants' callers, who are to see that nothing happens to them, and to leave room for the clients."""
MAX_MORE_MAPPINGS = 64
"""For the memory of the processes themselves, whose allocators map and unmap as they like."""


def run(clients: int = 10_000, kills: int = 500, processes: int = 2, seed: int = 0) -> Report:
    """Let clients come and go, then kill some; the other tenants go on, and nothing stays behind.

    Args:
        clients: that come and go.
        kills: clients that are killed with requests under way.
        processes: in which the former live.
        seed: what they do, and when they are killed.
    """
    report = Report("connects")
    with stage(target()) as daemon:
        pids, router = daemon.pids(), daemon.status()["router"]
        watched = {"router": router["pid"], "worker": pids[TARGET]}
        ask_once(daemon)
        wait_until_empty(daemon, [TARGET])
        before = {name: held(pid) for name, pid in watched.items()}
        mappings = {name: _mappings(pid) for name, pid in watched.items()}
        with Load(daemon, daemon.questions, callers=1, pause_s=PAUSE_S) as load:
            address = daemon.address(TARGET)
            calls = [(address, clients // processes, seed + number) for number in range(processes)]
            visits = together(visit, *calls)
            served = apart(kill_clients, address, kills, seed)
            ask_once(daemon)
        wait_until_empty(daemon, [TARGET])
        done = sum((each for each, _ in visits), Counter[str]())
        report.figures = {"clients": dict(done), "clients_killed": kills, "of_them_answered_before": served}
        report.broken += [f"a process of clients keeps {more}" for _, more in visits if more]
        report.broken += kept(watched, before)
        for name, pid in watched.items():
            report.figures[f"{name}_held_before"], report.figures[f"{name}_holds"] = dict(before[name]), dict(held(pid))
            report.figures[f"{name}_more_mappings"] = more = _mappings(pid) - mappings[name]
            if more > MAX_MORE_MAPPINGS:
                report.broken.append(f"the {name} has {more} mappings more than before")
        after = daemon.status()["router"]
        report.figures["router_grew_mib"] = (after["rss_bytes"] - router["rss_bytes"]) >> 20
        if daemon.pids() != pids or after["pid"] != router["pid"]:
            report.broken.append(f"processes were {pids} and {router['pid']}, are {daemon.pids()} and {after['pid']}")
        report.broken += daemon.account_problems()
    judgement = load.judge()
    report.broken += judgement.broken()
    if done["wrong"] or not done["in_shared_memory"]:
        report.broken.append(f"of the clients' answers {done['wrong']} were wrong, {done['in_shared_memory']} shared")
    report.figures |= judgement.figures()
    return report


def _mappings(pid: int) -> int:
    return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").count("\n")
