"""Clients that come, use shared memory, and go or are killed; and the tenant whom they visit."""

from __future__ import annotations

import multiprocessing
import os
import random
import select
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

import trtd
from tests.bench.loads import lies_in_memfd
from tests.chaos.holdings import held
from tests.chaos.stage import PATIENT, RESTART_AT_ONCE
from tests.support import daemon as harness
from tests.support.daemon import Daemon

TARGET = "target"
SHAPE = (1, 64 * 1024)
"""256 KiB: large enough for shared memory."""
MAX_LIFE_S = 0.1
"""How long a client lives at most, once it has its first answer, before it is killed."""
MOST_REQUESTS = 4
WARM_VISITS = 20
"""Visits after which a process holds all that visits need from then on."""


def target() -> dict[str, Any]:
    """The table of a tenant that gives large tensors back."""
    model = harness.script(inputs=[{"name": "x", "dtype": "float32", "shape": [None, SHAPE[1]]}])
    return {TARGET: harness.tenant(model, restart=RESTART_AT_ONCE, health=PATIENT)}


def visit(address: str, count: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Connect, ask, go: so many times, a few of them in the middle of a request.

    Returns:
        What was done how often, and what this process holds more in the end than near its beginning.
    """
    rng = random.Random(seed)
    done: Counter[str] = Counter()
    before: Counter[str] = Counter()
    for number in range(count):
        with trtd.Client(address, timeout=60.0) as client:
            x = client.empty(SHAPE)
            x[...] = number
            for _ in range(rng.randrange(MOST_REQUESTS + 1)):
                answer = client.infer("echo", {"x": x})["x"]
                done["right" if np.array_equal(answer, x) else "wrong"] += 1
                done["in_shared_memory"] += lies_in_memfd(answer)
                del answer
            if rng.random() < 0.1:
                client.submit("echo", {"x": x})
                done["left_unanswered"] += 1
        del x
        done["visits"] += 1
        if number == min(WARM_VISITS, count // 2):
            before = held(os.getpid())
    return done, held(os.getpid()) - before


def kill_clients(address: str, count: int, seed: int) -> int:
    """Start clients that send from shared memory, and kill each at a random moment; how many had an answer before."""
    rng = random.Random(seed)
    served = 0
    for _ in range(count):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            _ask_for_ever(address, writer)
        os.close(writer)
        if select.select([reader], [], [], harness.PATIENCE_S)[0]:
            served += len(os.read(reader, 1))
            select.select([], [], [], rng.random() * MAX_LIFE_S)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
    return served


def _ask_for_ever(address: str, writer: int) -> None:
    """A client that keeps requests out until it is killed; it rewrites its inputs while they run."""
    try:
        client = trtd.Client(address)
        x = client.empty(SHAPE)
        has_told = False
        while True:
            x = x if has_told else client.empty(SHAPE)
            handles = [client.submit("echo", {"x": x}, timeout=20.0) for _ in range(4)]
            x[...] = np.nan
            for handle in handles:
                handle.result()
            if not has_told:
                os.write(writer, b"!")
                has_told = True
    finally:
        os._exit(1)


def apart(work: Callable[..., Any], *args: Any) -> Any:
    """The result of a function, run in a process of its own."""
    return together(work, args)[0]


def together(work: Callable[..., Any], *calls: tuple[Any, ...]) -> list[Any]:
    """The results of several calls of a function, each in a process of its own, at the same time."""
    with ProcessPoolExecutor(len(calls), multiprocessing.get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(work, *args) for args in calls]]


def ask_once(daemon: Daemon) -> None:
    """See that the target answers, from shared memory in the end."""
    with daemon.client(TARGET) as client:
        x = client.empty(SHAPE)
        x[...] = 2.0
        for _ in range(8):
            answer = client.infer("echo", {"x": x}, timeout=30)
            assert np.array_equal(answer["x"], x), "an answer to the target is wrong"
