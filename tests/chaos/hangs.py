"""Workers that hang in native code, with and without the interpreter's lock."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import trtd
from tests.chaos.figures import Report, spread_ms
from tests.chaos.load import PAUSE_S, Load
from tests.chaos.stage import RESTART_AT_ONCE, Log, Stage, instant_of, stage
from tests.support import daemon as harness
from trtd.errors import ErrorCode, TrtdError

POISON = 666.0
BESIDE = 4
"""Innocent requests that are sent together with each hang."""
TIMEOUT_S = 60.0
ALLOWED = {ErrorCode.POISONOUS, ErrorCode.WORKER_LOST}
"""How a request that hangs its worker may end."""
CAUSES = {"native_gil_held": "beat_missed", "native_gil_free": "progress_stalled"}
BEHAVIOURS = {"native_gil_held": "hang_holding_gil", "native_gil_free": "hang"}


@dataclass(slots=True)
class Trials:
    """What came of one kind of hang.

    Attributes:
        noticed_s: from the act until the worker was seen as hung, killed and reaped.
        innocent: how requests ended that were under way beside it.
        culprit: how requests ended that hang their worker.
        broken: what should not be.
    """

    noticed_s: list[float] = field(default_factory=list)
    innocent: Counter[str] = field(default_factory=Counter)
    culprit: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


def run(count: int = 20, progress_s: float = 2.0, pause_s: float = PAUSE_S) -> Report:
    """Hang the workers of two tenants, one in each way, again and again, while three other tenants are asked."""
    others = {
        kind: harness.tenant(
            harness.script(behaviour, when=POISON), restart=RESTART_AT_ONCE, health={"progress_s": progress_s}
        )
        for kind, behaviour in BEHAVIOURS.items()
    }
    report = Report("hangs")
    trials = {kind: Trials() for kind in others}
    with stage(others) as daemon:
        before = daemon.generations()
        with Load(daemon, daemon.questions, pause_s=pause_s) as load:
            threads = [
                threading.Thread(target=_repeat, args=(daemon, kind, count, trials[kind]), name=kind) for kind in trials
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        after = daemon.generations()
        report.broken += daemon.account_problems()
    report.broken += [f"the worker of {name} was replaced" for name in load.callers if before[name] != after[name]]
    judgement = load.judge()
    report.broken += judgement.broken()
    report.figures = {"hangs_of_each_kind": count, "beat_s": 1.0, "progress_s": progress_s, **judgement.figures()}
    for kind, each in trials.items():
        report.figures[f"{kind}_noticed_after"] = spread_ms(each.noticed_s)
        report.figures[f"{kind}_requests_beside_it"] = dict(each.innocent)
        report.figures[f"{kind}_requests_that_hang"] = dict(each.culprit)
        report.broken += [f"{kind}: {line}" for line in each.broken]
    return report


def _repeat(daemon: Stage, kind: str, count: int, trials: Trials) -> None:
    log = Log(daemon.log_file)
    try:
        with daemon.client(kind) as client:
            for number in range(count):
                _hang(daemon, log, client, kind, number, trials)
    except Exception as error:  # an error of this thread must end in the report, not in a traceback beside it
        trials.broken.append(f"{type(error).__name__}: {error}")


def _hang(daemon: Stage, log: Log, client: trtd.Client, kind: str, number: int, trials: Trials) -> None:
    """One hang with innocent requests beside it, from the act until everything about it has ended."""
    log.read()
    seen = len(log.lines)
    generation = daemon.worker(kind)["generation"]
    acted_at = time.monotonic()
    # Each culprit is an input of its own: a convicted one would be refused at the door the next time.
    culprit = client.submit("echo", {"x": _row(POISON, number)}, timeout=TIMEOUT_S)
    beside = {
        float(value): client.submit("echo", {"x": _row(value, number)}, timeout=TIMEOUT_S) for value in range(BESIDE)
    }
    exited = log.wait("worker.exited", seen, tenant=kind, generation=generation)
    trials.noticed_s.append(instant_of(exited) - acted_at)
    if exited["cause"] != CAUSES[kind]:
        trials.broken.append(f"the worker ended for {exited['cause']}, not {CAUSES[kind]}")
    for value, handle in beside.items():
        trials.innocent[_outcome(handle, _row(value, number), trials)] += 1
    error = culprit.exception(2 * TIMEOUT_S)
    trials.culprit[str(error.code) if error else "answered"] += 1
    if error is None or error.code not in ALLOWED:
        trials.broken.append(f"a request that hangs its worker ended as {error}")
    daemon.wait_status(
        lambda status: all(each["health"] == "ready" for each in status["tenants"] if each["name"] == kind),
        f"the successor of {kind}'s worker",
    )


def _outcome(handle: Any, expected: np.ndarray, trials: Trials) -> str:
    try:
        answer = handle.result(2 * TIMEOUT_S)
    except TrtdError as error:
        trials.broken.append(f"a request beside a hang ended as {error}")
        return str(error.code)
    if not np.array_equal(answer["x"], expected):
        trials.broken.append("a request beside a hang was answered wrongly")
        return "wrong"
    return "replayed_and_right"


def _row(first: float, number: int) -> np.ndarray:
    return np.array([[first, number, 0, 0]], np.float32)
