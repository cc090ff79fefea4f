"""Tenant A floods its endpoint while tenant B asks in a closed loop: what B feels of it.

The flooding processes need processor time of their own. So B is measured alone, beside as many processes that only use
up processor time, and beside the flood, in turns within one run: the second tells what of the third is not trtd's.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
import zmq

from tests.chaos.figures import Report, quantile
from tests.chaos.holdings import left_behind
from tests.chaos.load import Load
from tests.chaos.stage import PATIENT, Stage, stage
from tests.support import daemon as harness
from trtd.core.ids import RequestId
from trtd.errors import ErrorCode
from trtd.wire import codec
from trtd.wire.messages import Dtype, InferRequest, TensorSpec

FLOODED, ASKED = "flooded", "ranking"
FLOOD_ARRIVED = 2000
"""Requests of the flood that have reached the router before its effect is measured."""
PHASES = ("alone", "busy", "flooded")
QUEUED_MESSAGES = 1000
BESIDE = 3000
ALLOWED = {ErrorCode.OVERLOADED, ErrorCode.DEADLINE_EXCEEDED}
"""What another client of the flooded tenant may be told."""


def send_for_ever(address: str, go: Event) -> None:
    """A process that sends requests as fast as the socket takes them while `go` is set, and reads no answer."""
    message = InferRequest(RequestId(b"\0" * 16), "echo", None, (TensorSpec("x", Dtype.FLOAT32, (1, 4)),), 1.0)
    before, after = codec.encode_client_message(message).split(message.id)
    payload = bytes(16)
    number = 0
    with zmq.Context() as context:
        while True:
            go.wait()
            with context.socket(zmq.DEALER) as socket:
                socket.set(zmq.LINGER, 0)
                socket.set(zmq.SNDHWM, QUEUED_MESSAGES)
                socket.connect(address)
                while go.is_set():
                    number += 1
                    socket.send_multipart([before + number.to_bytes(16) + after, payload])


def spin_for_ever(_address: str, go: Event) -> None:
    """A process that uses up processor time while `go` is set, and does nothing."""
    while True:
        go.wait()
        while go.is_set():
            sum(range(10_000))


@contextmanager
def processes_that(work: Callable[[str, Event], None], address: str, count: int) -> Iterator[Event]:
    """Processes that work while the event is set."""
    context = multiprocessing.get_context("spawn")
    go = context.Event()
    started = [context.Process(target=work, args=(address, go), daemon=True) for _ in range(count)]
    for process in started:
        process.start()
    try:
        yield go
    finally:
        for process in started:
            process.kill()
            process.join()


def run(requests: int = 3000, rounds: int = 3, processes: int = 2, *, arenas: bool = False) -> Report:
    """Measure B in turns.

    Args:
        requests: of B in each phase; a phase ends when they are answered.
        rounds: how often each phase comes.
        processes: that flood, or spin.
        arenas: whether B has tensors that are large enough for shared memory.
    """
    report = Report("flood")
    latencies: dict[str, list[float]] = {phase: [] for phase in PHASES}
    beside: Counter[str] = Counter()
    others = {FLOODED: harness.tenant(harness.script(), health=PATIENT)}
    with stage(others, is_large=arenas) as daemon:
        address = daemon.address(FLOODED)
        with (
            processes_that(send_for_ever, address, processes) as flood,
            processes_that(spin_for_ever, address, processes) as busy,
            Load(daemon, {ASKED: daemon.questions[ASKED]}, callers=1, pause_s=0.0) as load,
        ):
            before = daemon.tenant(FLOODED)["counters"]
            for _ in range(rounds):
                for phase in PHASES:
                    switches = {"busy": busy, "flooded": flood}
                    if phase in switches:
                        switches[phase].set()
                    if phase == "flooded":
                        _wait_for_flood(daemon)
                    since = time.monotonic()
                    load.wait_more(ASKED, requests)
                    latencies[phase] += latencies_since(load, since)
                    if phase == "flooded":
                        beside += _ask_beside(daemon)
                    if phase in switches:
                        switches[phase].clear()
            after = daemon.tenant(FLOODED)["counters"]
        report.broken += daemon.account_problems() + left_behind(daemon)
        if daemon.status()["router"]["restarts"]:
            report.broken.append("the router died of the flood")
        if daemon.tenant(ASKED)["workers"][0]["restarts"]:
            report.broken.append(f"the worker of {ASKED} was replaced")
    judgement = load.judge()
    report.broken += judgement.broken() + load.sharing_problems()
    report.broken += [f"another client of the flooded tenant was told {name}" for name in beside
                      if name not in {*ALLOWED, "answered"}]  # fmt: skip
    report.figures = {
        "flooding_processes": processes,
        **judgement.figures(),
        **load.sharing(),
        **{phase: quantiles(latencies[phase]) for phase in PHASES},
        "flooded_against_alone": ratios(latencies["flooded"], latencies["alone"]),
        "busy_against_alone": ratios(latencies["busy"], latencies["alone"]),
        "flooded_against_busy": ratios(latencies["flooded"], latencies["busy"]),
        "flooding_requests": {name: after[name] - before[name] for name in ("accepted", "answered", "refused")},
        "other_requests_of_the_flooded_tenant": dict(beside),
    }
    return report


def _wait_for_flood(daemon: Stage) -> None:
    """Wait until the flood is there. On a fast host the flooded tenant may keep up with it and refuse nothing."""

    def arrived() -> int:
        counters = daemon.tenant(FLOODED)["counters"]
        return int(counters["accepted"] + counters["refused"])

    before = arrived()
    harness.wait_until(lambda: arrived() > before + FLOOD_ARRIVED, "the flood")


def latencies_since(load: Load, since: float) -> list[float]:
    """Seconds from question to answer of those asked since then."""
    history = load.histories[0]
    return [
        history.answered_at[number] - history.sent_at[number]
        for number in history.newest_first(since)
        if history.sent_at[number] > since
    ]


def _ask_beside(daemon: Stage) -> Counter[str]:
    """A client of the flooded tenant that reads its answers, with many requests at a time: how they end."""
    outcomes: Counter[str] = Counter()
    with daemon.client(FLOODED) as client:
        inputs = {"x": np.ones((1, 4), np.float32)}
        for handle in [client.submit("echo", inputs, timeout=30) for _ in range(BESIDE)]:
            error = handle.exception(60)
            outcomes[str(error.code) if error else "answered"] += 1
    return outcomes


def quantiles(values: list[float]) -> dict[str, Any]:
    """How many there are, median and 99th percentile, in microseconds."""
    return {"n": len(values), **{f"p{q}_us": round(quantile(values, q / 100) * 1e6) for q in (50, 99)}}


def ratios(values: list[float], base: list[float]) -> dict[str, float]:
    """Median and 99th percentile against those of others."""
    return {f"p{q}": round(quantile(values, q / 100) / quantile(base, q / 100), 2) for q in (50, 99)}
