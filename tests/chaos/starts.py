"""A reload that concerns all of many tenants: the router lives, and those who ask meanwhile miss no deadline."""

from __future__ import annotations

import signal
import time
from typing import Any

from tests.chaos.figures import Report
from tests.chaos.load import Load
from tests.chaos.stage import MODELS, PATIENT, Stage, stage
from tests.support import daemon as harness

READY_PATIENCE_S = 900.0
PAUSE_S = 0.02
"""Of the callers: they shall be there, and not take the processors from the workers that start."""


def run(tenants: int = 80) -> Report:
    """Start many tenants, ask three of them, replace the workers of all with one reload, and wait until it is done."""
    report = Report("starts")
    crowd = {f"t{number}": harness.tenant(health=PATIENT) for number in range(tenants - len(MODELS))}
    with stage(crowd, router={}, ready_s=READY_PATIENCE_S, health={"beat_s": 1.0}) as daemon:
        before = daemon.status()["router"]
        with Load(daemon, daemon.questions, callers=2, pause_s=PAUSE_S) as load:
            began_at = time.monotonic()
            _replace_all(daemon, crowd)
            reload_s = time.monotonic() - began_at
        after = daemon.status()["router"]
        report.broken += daemon.account_problems()
        exits = [line for line in daemon.log.all("worker.exited") if line.get("cause") not in {None, "requested"}]
    if after["pid"] != before["pid"]:
        report.broken.append(f"the router was replaced {after['restarts'] - before['restarts']} times")
    report.broken += [f"a worker ended for {line['cause']}" for line in exits]
    judgement = load.judge()
    report.broken += judgement.broken()
    report.figures = {"tenants": tenants, "reload_to_all_replaced_s": round(reload_s, 1), **judgement.figures()}
    return report


def _replace_all(daemon: Stage, crowd: dict[str, Any]) -> None:
    tables = {**crowd, **{name: table for name, table in daemon.tables.items() if name in MODELS}}
    daemon.configure({name: {**table, "threads": 2} for name, table in tables.items()}, router={})
    old = _pids(daemon.status())
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_status(
        lambda status: status["health"] == "ready" and not old & _pids(status),
        "successors of all workers",
        READY_PATIENCE_S,
    )


def _pids(status: dict[str, Any]) -> set[int]:
    return {worker["pid"] for entry in status["tenants"] for worker in entry["workers"]}
