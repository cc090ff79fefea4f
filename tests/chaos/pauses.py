"""SIGSTOP and SIGCONT of the supervisor, the router, a worker, and all of them under load: nobody healthy is killed.

A worker that really hangs, right after such a pause, has to be found as soon as ever.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.chaos.figures import Report, spread_ms
from tests.chaos.load import PAUSE_S, Load
from tests.chaos.stage import MODELS, RESTART_AT_ONCE, Stage, instant_of, stage
from tests.support import daemon as harness

SHORT_S = (1.0, 3.0)
POISON = 666.0
BEAT_S = 1.0
"""The default; the other proofs are more patient."""
LATEST_S = 5 * BEAT_S
"""A hung worker is found after `beat_s`; on a machine that has no processor for it, after this at the latest."""
HUNG = "hung"


def run(longest_s: float = 30.0, pause_s: float = PAUSE_S) -> Report:
    """Stop each kind of process for each of the spans, hang a worker after each, and look who was killed.

    Args:
        longest_s: the last span.
        pause_s: of the callers.
    """
    report = Report("pauses")
    others = {
        HUNG: harness.tenant(
            harness.script("hang_holding_gil", when=POISON), restart=RESTART_AT_ONCE, queue={"poison_s": 0}
        )
    }
    noticed_s: list[float] = []
    back_s: list[float] = []
    pauses = 0
    with stage(others, router={}, health={"beat_s": BEAT_S}) as daemon:
        with Load(daemon, daemon.questions, pause_s=pause_s) as load:
            for span_s in (*SHORT_S, longest_s):
                for who in ("supervisor", "router", "worker", "all"):
                    before = _lives(daemon)
                    _pause(_pids(daemon, who), span_s)
                    on_at = time.monotonic()
                    load.wait_answered(list(MODELS), on_at)
                    back_s.append(time.monotonic() - on_at)
                    pauses += 1
                    noticed_s.append(_hang(daemon))
                    after = _lives(daemon)
                    report.broken += [
                        f"{name} was replaced after {span_s:g} s of {who}"
                        for name in before
                        if before[name] != after[name]
                    ]
        report.broken += daemon.account_problems()
        stops = [line["event"] for line in daemon.log.all("worker.stopped") + daemon.log.all("router.stopped")]
    report.broken += [f"a hung worker was found after {each:.2f} s" for each in noticed_s if not each < LATEST_S]
    judgement = load.judge()
    report.broken += judgement.broken()
    report.figures = {
        "pauses": pauses,
        "longest_s": longest_s,
        "stops_that_were_noticed": len(stops),
        **judgement.figures(),
        "end_of_pause_to_answers_for_all_callers": spread_ms(back_s),
        "hung_worker_found_after": spread_ms(noticed_s),
    }
    return report


def _lives(daemon: Stage) -> dict[str, int]:
    """Process ids of all that is not meant to hang."""
    status = daemon.status()
    return {"router": status["router"]["pid"]} | {
        worker["name"]: worker["pid"]
        for entry in status["tenants"]
        if entry["name"] != HUNG
        for worker in entry["workers"]
    }


def _pids(daemon: Stage, who: str) -> Sequence[int]:
    status: dict[str, Any] = daemon.status()
    workers = [worker["pid"] for entry in status["tenants"] for worker in entry["workers"]]
    router = status["router"]["pid"]
    return {
        "supervisor": [daemon.pid],
        "router": [router],
        "worker": [daemon.worker("ranking")["pid"]],
        "all": [daemon.pid, router, *workers],
    }[who]


def _pause(pids: Sequence[int], seconds: float) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def _hang(daemon: Stage) -> float:
    """Hang a worker in native code; seconds until it was found, killed and reaped."""
    daemon.wait_status(
        lambda status: all(each["health"] == "ready" for each in status["tenants"] if each["name"] == HUNG),
        "a worker to hang",
    )
    seen = len(daemon.log.lines)
    generation = daemon.worker(HUNG)["generation"]
    with daemon.client(HUNG) as client:
        acted_at = time.monotonic()
        client.submit("echo", {"x": np.full((1, 4), POISON, np.float32)}, timeout=60.0)
        exited = daemon.log.wait("worker.exited", seen, tenant=HUNG, generation=generation)
    return instant_of(exited) - acted_at
