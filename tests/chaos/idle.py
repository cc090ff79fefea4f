"""What a daemon costs that has nothing to do, and whether it comes back from its rest as fast as it should."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.chaos.figures import Report, spread_ms
from tests.support import daemon as harness

MOST_PERCENT = 3.0
"""Of one core, for all processes of the daemon together, with a hundred tenants."""
SETTLE_S = 10.0
"""From readiness until nothing is done any more: every worker rests."""
READY_PATIENCE_S = 600.0


def run(tenants: int = 100, seconds: float = 30.0) -> Report:
    """Start a daemon with many tenants, leave it alone, measure its processor time, then ask each tenant once."""
    report = Report("idle")
    row = np.ones((1, 4), np.float32)
    with harness.Daemon({f"t{number}": harness.tenant() for number in range(tenants)}) as daemon:
        daemon.start()
        began_at = time.monotonic()
        status = daemon.wait_ready(READY_PATIENCE_S)
        ready_s = time.monotonic() - began_at
        time.sleep(SETTLE_S)
        pids = {
            "supervisor": [daemon.pid],
            "router": [status["router"]["pid"]],
            "workers": [worker["pid"] for entry in status["tenants"] for worker in entry["workers"]],
        }
        before = {who: sum(map(processor_s, each)) for who, each in pids.items()}
        began_at = time.monotonic()
        time.sleep(seconds)
        took_s = time.monotonic() - began_at
        percent = {who: 100 * (sum(map(processor_s, each)) - before[who]) / took_s for who, each in pids.items()}
        first_s = []
        for number in range(tenants):
            with daemon.client(f"t{number}") as client:
                answer = client.infer("echo", {"x": row}, timeout=30.0)
                first_s.append(answer.timing.total_s)
        report.broken += [f"{line['event']}: {line.get('cause')}" for line in _replaced(daemon)]
    whole = sum(percent.values())
    if whole > MOST_PERCENT * max(tenants, 100) / 100:
        report.broken.append(f"an idle daemon takes {whole:.2f} % of a core")
    report.figures = {
        "tenants": tenants,
        "measured_s": round(took_s, 1),
        "start_to_ready_s": round(ready_s, 1),
        "percent_of_a_core": {who: round(each, 2) for who, each in percent.items()} | {"all": round(whole, 2)},
        "first_answer_after_the_rest": spread_ms(first_s),
    }
    return report


def processor_s(pid: int) -> float:
    """Processor time of a process so far, by the nanosecond where the kernel counts so."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0]) for task in tasks.iterdir()) / 1e9
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _replaced(daemon: harness.Daemon) -> list[dict[str, Any]]:
    return daemon.events("worker.exited") + daemon.events("router.exited")
