"""Users without any right open raw connections to every socket of the daemon; what a tenant feels of it, and operators.

The connecting processes need processor time of their own. So the tenant is measured alone, beside as many processes
that only use up processor time, and beside strangers that connect and go (`storm`), that connect and stay (`held`), and
beside a user who may use another tenant and connects to it as often as he can (`guests`), in turns within one run.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.synchronize import Event

from tests.chaos.figures import Report, quantile
from tests.chaos.flood import latencies_since, processes_that, quantiles, ratios, spin_for_ever
from tests.chaos.load import Load
from tests.chaos.stage import PATIENT, Stage, stage
from tests.support import daemon as harness
from tests.support.strangers import Strangers
from trtd.cli.operator import call
from trtd.errors import TrtdError

CLOSED, OPEN, ASKED = "closed", "open", "ranking"
PHASES = ("alone", "busy", "storm", "held", "guests")
ENDLESS = 100_000_000
HELD = 5_000
"""Connections that each process tries to hold."""
STATUSES = 24
"""Questions of an operator in each phase."""


def run(requests: int = 2000, rounds: int = 3, processes: int = 2) -> Report:
    """Measure the tenant in turns.

    Args:
        requests: of the measured tenant in each phase.
        rounds: how often each phase comes.
        processes: that connect, or spin.
    """
    report = Report("strangers")
    if os.geteuid() != 0:
        report.broken.append("only root can become another user: nothing was shown")
        return report
    latencies: dict[str, list[float]] = {phase: [] for phase in PHASES}
    outcomes: dict[str, Counter[str]] = {phase: Counter() for phase in PHASES}
    statuses: list[float] = []
    others = {
        CLOSED: harness.tenant(harness.script(), health=PATIENT),
        OPEN: harness.tenant(harness.script(), health=PATIENT, allow_users=["*"]),
    }
    with stage(others) as daemon:
        pid, pids, before = daemon.pid, daemon.pids(), daemon.status()["router"]
        with (
            processes_that(spin_for_ever, "", processes) as busy,
            Load(daemon, {ASKED: daemon.questions[ASKED]}, callers=1, pause_s=0.0) as load,
        ):
            for _ in range(rounds):
                for phase in PHASES:
                    with _beside(daemon, phase, processes, busy, outcomes[phase]):
                        since = time.monotonic()
                        load.wait_more(ASKED, requests)
                        latencies[phase] += latencies_since(load, since)
                        statuses += _ask_status(daemon, report)
        after = daemon.status()["router"]
        if (daemon.pid, daemon.pids(), after["pid"]) != (pid, pids, before["pid"]):
            report.broken.append(f"processes were {pids} and {before['pid']}, are {daemon.pids()} and {after['pid']}")
        refused = daemon.tenant(CLOSED)["connections_refused"]
        report.broken += daemon.account_problems()
    judgement = load.judge()
    report.broken += judgement.broken()
    if not refused:
        report.broken.append("no stranger was sent away: nothing was shown")
    report.figures = {
        "connecting_processes": processes,
        "router_deaths": after["restarts"],
        "strangers_sent_away": refused,
        **judgement.figures(),
        **{phase: quantiles(latencies[phase]) for phase in PHASES},
        **{f"{phase}_against_busy": ratios(latencies[phase], latencies["busy"]) for phase in PHASES[2:]},
        **{f"{phase}_connections": dict(outcomes[phase]) for phase in PHASES[2:]},
        "statuses_of_an_operator": len(statuses),
        "slowest_status_ms": round(max(statuses, default=0.0) * 1e3, 1),
        "status_p50_ms": round(quantile(statuses, 0.5) * 1e3, 1),
    }
    return report


@contextmanager
def _beside(daemon: Stage, phase: str, count: int, busy: Event, outcomes: Counter[str]) -> Iterator[None]:
    """What goes on during one phase."""
    if phase == "alone":
        yield
        return
    if phase == "busy":
        busy.set()
        yield
        busy.clear()
        return
    names = (f"{OPEN}.sock",) if phase == "guests" else (f"{CLOSED}.sock", f"{CLOSED}.sock", "operator.sock")
    mode, most = ("hold", HELD) if phase == "held" else ("storm", ENDLESS)
    with ExitStack() as stack:
        started = [
            stack.enter_context(Strangers(daemon.runtime_dir, *names, mode=mode, count=most, seconds=600.0))
            for _ in range(count)
        ]
        yield
        for each in started:
            outcomes.update(each.stop())


def _ask_status(daemon: Stage, report: Report) -> list[float]:
    """How long an operator waited for his answers."""
    waited = []
    for _ in range(STATUSES):
        began = time.monotonic()
        try:
            # As the command does it, which waits where many others do before it.
            call(str(daemon.runtime_dir), "status", {})
        except TrtdError as error:
            report.broken.append(f"an operator was locked out: {error}")
        waited.append(time.monotonic() - began)
    return waited
