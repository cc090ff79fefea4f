"""Drains under load: what was accepted is answered, the rest is refused, and `drain` returns when all of it is out."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from typing import Any

import numpy as np

from tests.chaos.figures import Report, spread_ms
from tests.chaos.history import RIGHT
from tests.chaos.holdings import left_behind
from tests.chaos.load import PAUSE_S, Load
from tests.chaos.stage import MODELS, PATIENT, RESTART_AT_ONCE, Stage, stage
from tests.support import daemon as harness
from tests.support.daemon import wait_until
from trtd.errors import ErrorCode, ExitCode

SLOW, SLOW_S = "slow", 3.0
MOST_REQUESTS_BETWEEN = 60
LATE_S = 1.0
"""A right answer that a caller has not seen so long after the drain returned was not out by then."""


def run(count: int = 200, cut: int = 10, seed: int = 0, pause_s: float = PAUSE_S, *, arenas: bool = False) -> Report:
    """Drain one of three tenants under load and resume it, again and again; then some drains that time out.

    Args:
        count: drains under load.
        cut: drains of a slow tenant with a timeout that is too short.
        seed: which tenants, and when.
        pause_s: of the callers.
        arenas: whether tensors are large enough for shared memory.
    """
    rng = random.Random(seed)
    report = Report("drains")
    drained_s: list[float] = []
    latest_s: list[float] = []
    slow = harness.tenant(
        harness.script("sleep", when=1.0, seconds=SLOW_S), restart=RESTART_AT_ONCE, health={"progress_s": 60, **PATIENT}
    )
    with stage({SLOW: slow}, is_large=arenas) as daemon:
        with Load(daemon, daemon.questions, pause_s=pause_s) as load:
            for _ in range(count):
                tenant = rng.choice(list(MODELS))
                load.wait_more(tenant, rng.randrange(MOST_REQUESTS_BETWEEN))
                took_s, latest = _drain(daemon, load, tenant, report)
                drained_s.append(took_s)
                latest_s.append(latest)
        cut_count = sum(_cut(daemon, report) for _ in range(cut))
        report.broken += daemon.account_problems() + left_behind(daemon)
        counters = {entry["name"]: entry["counters"] for entry in daemon.status()["tenants"]}
    judgement = load.judge()
    report.broken += judgement.broken({ErrorCode.DRAINING}) + load.sharing_problems()
    report.broken += [f"{counters[name]['failed']} accepted requests of {name} failed" for name in MODELS
                      if counters[name]["failed"]]  # fmt: skip
    report.figures = {
        "drains": count,
        **judgement.figures(),
        **load.sharing(),
        "drain_took": spread_ms(drained_s),
        "last_answer_seen_after_return": spread_ms(latest_s),
        "drains_cut": cut,
        "cut_with_exit_75_and_the_right_ids": cut_count,
    }
    return report


def _drain(daemon: Stage, load: Load, tenant: str, report: Report) -> tuple[float, float]:
    """Drain and resume once; how long it took, and how long after its return a caller still read an answer."""
    began_at = time.monotonic()
    daemon.call("drain", tenant=tenant)
    returned_at = time.monotonic()
    state = daemon.tenant(tenant)
    worker = state["workers"][0]
    if state["queued"] or state["leased"] or worker["pid"] is not None:
        report.broken.append(f"drain of {tenant} returned with {state['queued']} queued, {state['leased']} leased")
    histories = load.histories_of(tenant)
    # A refusal comes after all earlier answers of the same connection: from then on, nothing older can come.
    wait_until(lambda: all(history.ends_sent_after(returned_at) for history in histories), f"refusals of {tenant}", 60)
    latest_s = 0.0
    for history in histories:
        for number in history.newest_first(returned_at):
            if history.outcome(number) != RIGHT:
                continue
            if history.sent_at[number] > returned_at:
                report.broken.append(f"{tenant} answered a request that was sent after its drain")
            latest_s = max(latest_s, history.answered_at[number] - returned_at)
    if latest_s > LATE_S:
        report.broken.append(f"an answer of {tenant} came {latest_s:.1f} s after its drain had returned")
    resumed_at = time.monotonic()
    daemon.call("resume", tenant=tenant)
    load.wait_answered([tenant], resumed_at)
    return returned_at - began_at, latest_s


def _cut(daemon: Stage, report: Report) -> bool:
    """`trtd drain` with too short a timeout: whether it ends with 75 and names exactly what has no answer."""
    with daemon.client(SLOW) as client:
        for _ in range(2):
            client.infer("echo", {"x": _row(0.0)}, timeout=60)
        handles = [client.submit("echo", {"x": _row(1.0)}, timeout=60) for _ in range(3)]
        wait_until(lambda: daemon.tenant(SLOW)["leased"] == len(handles), "all requests at the worker")
        code, unfinished = _call_drain(daemon)
        unanswered = {handle.id.hex() for handle in handles if not handle.done()}
        if code != ExitCode.TEMPORARY or set(unfinished) != unanswered or len(unanswered) != len(handles):
            report.broken.append(f"a drain that was cut: exit code {code}, named {unfinished}, left were {unanswered}")
        for handle in handles:
            if not np.array_equal(handle.result(60)["x"], _row(1.0)):
                report.broken.append("a request that outlived its drain's timeout was answered wrongly")
    daemon.wait_status(
        lambda status: all(each["phase"] == "drained" for each in status["tenants"] if each["name"] == SLOW),
        "the end of the drain",
    )
    daemon.call("resume", tenant=SLOW)
    daemon.wait_ready()
    return code == ExitCode.TEMPORARY and set(unfinished) == unanswered


def _call_drain(daemon: Stage) -> tuple[int, list[str]]:
    """The command as operators give it: its exit code, and the ids that it names."""
    done = subprocess.run(
        [sys.executable, "-m", "trtd.cli.main", "drain", SLOW, "--timeout", "0.2",
         "--runtime-dir", str(daemon.runtime_dir), "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, list(answer["error"]["details"]["unfinished"][SLOW]["request_ids"])
    except (ValueError, KeyError):
        return done.returncode, [done.stdout + done.stderr]


def _row(first: float) -> np.ndarray:
    return np.array([[first, 0, 0, 0]], np.float32)
