"""Load of every kind for a long time, and what grows meanwhile: memory, descriptors, mappings, queues.

Small requests one by one, from threads and from tasks that share a client, small ones in bundles, and large ones in
shared memory, from one process that keeps no record of each. Every answer is compared. Growth is the median of the last
quarter of the samples less that of the first quarter, both after a time in which everything reaches its size.
"""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import trtd
from tests.chaos.crowd import CALLERS, Outcomes, ask_in_tasks, ask_in_threads, broken_of, outcome_of, until
from tests.chaos.figures import Report
from tests.chaos.history import RIGHT, WRONG
from tests.chaos.load import ERROR_PAUSE_S, TIMEOUT_S, second_answers
from tests.chaos.stage import Stage, stage
from tests.chaos.visitors import SHAPE, TARGET, target
from tests.support.daemon import PATIENCE_S
from trtd.cli.traffic import Question
from trtd.errors import TrtdError

ASKED = "ranking"
SETTLING_S = 120.0
SETTLING_SHARE = 0.2
"""Runs that are shorter than ten minutes settle for this part of them."""
SAMPLE_S = 5.0
FEWEST_SAMPLES = 20
WINDOW = 64
DEPTH = 4
MOST_QUEUED = 2 * (WINDOW + 2 * CALLERS)
"""More than all callers together have under way would be requests that nobody waits for."""
BOUNDS = {"rss_kib": 16 * 1024, "descriptors": 4, "mappings": 16, "memfds": 4}
"""Most growth of a process that is none: allocators keep a little more or less, and arenas come and go."""


def ask_for_long(addresses: dict[str, str], questions: Sequence[Question], stop: Event, told: Connection) -> None:
    """A process with callers of each kind, until the event is set; then it tells how its requests ended, by kind."""
    callers: dict[str, list[Callable[[Outcomes], None]]] = {
        "one_by_one": [lambda outcomes: _one_by_one(addresses[ASKED], questions, stop, outcomes)] * 2,
        "threads": [lambda outcomes: ask_in_threads(addresses[ASKED], questions, stop.is_set, outcomes)],
        "tasks": [lambda outcomes: ask_in_tasks(addresses[ASKED], questions, stop.is_set, outcomes)],
        "bundled": [lambda outcomes: _bundled(addresses[ASKED], questions, stop, outcomes)],
        "shared": [lambda outcomes: _shared(addresses[TARGET], stop, outcomes)] * 2,
    }
    ended: dict[str, list[Outcomes]] = {kind: [Counter() for _ in each] for kind, each in callers.items()}
    threads = [
        threading.Thread(target=caller, args=(outcomes,))
        for kind, each in callers.items()
        for caller, outcomes in zip(each, ended[kind], strict=True)
    ]
    with second_answers() as count_second_answers:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told.send(({kind: sum(each, Counter()) for kind, each in ended.items()}, count_second_answers()))


def _one_by_one(address: str, questions: Sequence[Question], stop: Event, outcomes: Outcomes) -> None:
    with trtd.Client(address, timeout=TIMEOUT_S) as client:
        for question in until(stop.is_set, questions):
            try:
                answer: Any = client.infer(question.model, question.inputs)
            except TrtdError as error:
                answer = error
            _count(answer, question, outcomes)


def _bundled(address: str, questions: Sequence[Question], stop: Event, outcomes: Outcomes) -> None:
    asked = (question.inputs for question in until(stop.is_set, questions))
    with trtd.Client(address, timeout=TIMEOUT_S) as client:
        answers = client.infer_many(questions[0].model, asked, window=WINDOW, return_errors=True)
        for answer, question in zip(answers, itertools.cycle(questions), strict=False):
            _count(answer, question, outcomes)


def _shared(address: str, stop: Event, outcomes: Outcomes) -> None:
    with trtd.Client(address, timeout=TIMEOUT_S) as client:
        for number in itertools.count():
            if stop.is_set():
                return
            arrays = [client.empty(SHAPE) for _ in range(DEPTH)]
            for position, array in enumerate(arrays):
                array[...] = number * DEPTH + position
            handles = [client.submit("echo", {"x": array}) for array in arrays]
            for handle, array in zip(handles, arrays, strict=True):
                error = handle.exception()
                answer = error or handle.result()
                _count(answer, Question("echo", {}, "x", array), outcomes)


def _count(answer: Any, question: Question, outcomes: Outcomes) -> None:
    outcomes[outcome := outcome_of(answer, question)] += 1
    if outcome != RIGHT:
        time.sleep(ERROR_PAUSE_S)


def run(minutes: float = 10.0) -> Report:
    """Ask for so long, and look at all processes again and again."""
    report = Report("soak")
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    hears, tells = spawn.Pipe(duplex=False)
    with stage(target()) as daemon:
        addresses = {name: daemon.address(name) for name in (ASKED, TARGET)}
        client = spawn.Process(target=ask_for_long, args=(addresses, daemon.questions[ASKED], stop, tells), daemon=True)
        client.start()
        try:
            samples = _watch(daemon, client.pid or 0, minutes * 60.0)
            stop.set()
            if not hears.poll(TIMEOUT_S + PATIENCE_S):
                raise AssertionError("the callers did not end")
            outcomes, second = hears.recv()
        finally:
            client.kill()
            client.join()
        report.broken += daemon.account_problems()
        restarts = daemon.status()["router"]["restarts"] + daemon.worker(ASKED)["restarts"]
        if restarts + daemon.worker(TARGET)["restarts"]:
            report.broken.append("the router or a worker was replaced")
    report.broken += broken_of(outcomes)
    if second:
        report.broken.append(f"{second} answers came twice")
    totals = sum(outcomes.values(), Counter())
    report.figures = {
        "minutes": minutes,
        "requests": totals.total(),
        "right": totals[RIGHT],
        "wrong": totals[WRONG],
        **{f"right_{kind}": each[RIGHT] for kind, each in outcomes.items()},
        "second_answers_on_the_wire": second,
        "samples": len(samples),
    }
    _judge(samples, report)
    return report


Sample = dict[str, dict[str, int]]
"""By process, or `queue`, and then by what was counted."""


def _watch(daemon: Stage, client: int, seconds: float) -> list[Sample]:
    """Samples after the time of settling."""
    workers = daemon.pids()
    pids = {
        "client": client,
        "supervisor": daemon.pid,
        "router": daemon.status()["router"]["pid"],
        f"worker of {ASKED}": workers[ASKED],
        f"worker of {TARGET}": workers[TARGET],
    }
    began_at = time.monotonic()
    settled_at = began_at + min(SETTLING_S, SETTLING_SHARE * seconds)
    every_s = min(SAMPLE_S, seconds / FEWEST_SAMPLES)
    samples = []
    while (now := time.monotonic()) < began_at + seconds:
        sample = {name: _size_of(pid) for name, pid in pids.items()}
        sample["queue"] = {shown["name"]: shown["queued"] + shown["leased"] for shown in daemon.status()["tenants"]}
        if now >= settled_at:
            samples.append(sample)
        time.sleep(every_s)
    return samples


def _size_of(pid: int) -> dict[str, int]:
    proc = Path(f"/proc/{pid}")
    maps = (proc / "maps").read_text(encoding="utf-8")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text(encoding="utf-8").splitlines())
    return {
        "rss_kib": int(status["VmRSS"].split()[0]),
        "descriptors": sum(1 for _ in (proc / "fd").iterdir()),
        "mappings": maps.count("\n"),
        "memfds": maps.count("/memfd:"),
    }


def _judge(samples: Sequence[Sample], report: Report) -> None:
    """Compare the last quarter of the samples with the first."""
    quarter = max(len(samples) // 4, 1)
    for name, counted in samples[0].items():
        if name == "queue":
            longest = max(max(sample[name].values()) for sample in samples)
            report.figures["longest_queue"] = longest
            if longest > MOST_QUEUED:
                report.broken.append(f"{longest} requests were in a queue, more than all callers have under way")
            continue
        shown = {}
        for kind in counted:
            values = [sample[name][kind] for sample in samples]
            first, last = (int(statistics.median(part)) for part in (values[:quarter], values[-quarter:]))
            shown[kind] = f"{first:,} to {last:,}"
            if last - first > BOUNDS[kind]:
                report.broken.append(f"{name}: {kind} grew from {first:,} to {last:,}")
        report.figures[name.replace(" ", "_")] = shown
