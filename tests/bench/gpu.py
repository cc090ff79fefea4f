"""Loads for TensorRT plans: bare in one process, and through the daemon with clients' memory shared and not.

Bare is `trtd bench --bare`: the same plan, settings and slots, each slot with a batch at a time. In step, the daemon
gets as many requests at a time as it has slots, so that both wait for the same work; ahead, it gets more, so that a
slot finds its next request waiting.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import echoes
from tests.bench.loads import Listener, bare_sockets
from tests.support.daemon import Daemon
from trtd.client import Client
from trtd.client.values import Answer, Timing
from trtd.demo import plans

IMAGES = {"ResNet-50": "resnet50_fp16", "SqueezeNet": "squeezenet_fp16"}
MLP = "mlp"
PLANS = {"resnet50_fp16": "resnet50_fp16.vc", "squeezenet_fp16": "squeezenet_fp16.vc", MLP: "mlp.plain"}
MAX_BATCH = {"resnet50_fp16": 32, "squeezenet_fp16": 32, MLP: 64}
"""What each of the plans takes at most."""
BATCHES = (32, 8, 1)
SINGLE_CLIENTS, PROCESSES = 64, 8
ROW_BYTES = 2048
"""Of the MLP's input, and so of what the bare echo carries."""
WINDOW = 256
WARM_S = 0.7
ARENAS, FRAMES, ONE_SLOT = "arenas", "frames", "one_slot"
"""Tenants with the same models: clients' memory is shared, is not, and is with a single slot."""
PROCESS = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Load:
    """One way to ask.

    Attributes:
        name: for the table.
        model: which; none for the bare echo.
        tenant: whose slots run it.
        items: in each request.
        clients: each of which keeps `window` requests on their way; none for bare.
        window: see above.
        against: bare loads that it is compared with: items per second with the first, p50 with the sum of all.
        is_timed: whether its p50 can be compared with theirs, because as many requests are on their way.
    """

    name: str
    model: str
    tenant: str
    items: int
    clients: int = 0
    window: int = 1
    against: tuple[str, ...] = ()
    is_timed: bool = False


@dataclass(frozen=True)
class Figures:
    """Of one measurement.

    Attributes:
        per_s: items.
        p50_us: of a request.
        inside_us: of that, the time in the router's queue, in the worker's, and in the runtime: medians of each.
    """

    per_s: float
    p50_us: float
    inside_us: tuple[float, ...] = ()


def loads(slots: int) -> list[Load]:
    """All of them, each behind those that it is compared with."""
    found = []
    for title, model in IMAGES.items():
        for items in BATCHES:
            name = f"{title}, {items}"
            bare = (f"{name}, bare",)
            found.append(Load(*bare, model, ARENAS, items))
            for tenant in (ARENAS, FRAMES):
                found.append(Load(f"{name}, {tenant}, in step", model, tenant, items, slots, 1, bare, True))
                found.append(Load(f"{name}, {tenant}, ahead", model, tenant, items, 2, slots + 1, bare))
        bare = (f"{title}, {BATCHES[0]}, bare",)
        for tenant in (ARENAS, FRAMES):
            name = f"{title}, 1, {tenant}, {SINGLE_CLIENTS} clients"
            found.append(Load(name, model, tenant, 1, SINGLE_CLIENTS, 1, bare))
    one, many, echo = "MLP, 1, bare, one slot", "MLP, 64, bare", "bare two-hop echo"
    return [
        *found,
        Load(one, MLP, ONE_SLOT, 1),
        Load(echo, "", "", 1),
        Load("MLP, 1, one caller, one slot", MLP, ONE_SLOT, 1, 1, 1, (one, echo), is_timed=True),
        Load(many, MLP, ARENAS, 64),
        Load("MLP, 1, one client ahead", MLP, ARENAS, 1, 1, WINDOW, (many,)),
    ]


def tenants(assets: Path, place: Path, slots: int) -> dict[str, Any]:
    """For the daemon's configuration."""
    models = {
        name: {"path": str(plans.unpack_plan(assets, plan, place)), "max_batch": MAX_BATCH[name]}
        for name, plan in PLANS.items()
    }
    table = {"runtime": "tensorrt", "slots": slots, "models": models}
    return {
        ARENAS: table,
        FRAMES: {**table, "max_arena_bytes": 0},
        ONE_SLOT: {**table, "slots": 1, "models": {MLP: models[MLP]}},
    }


def measure(load: Load, daemon: Daemon, references: Path, seconds: float) -> Figures:
    """Run one load."""
    if not load.model:
        with tempfile.TemporaryDirectory() as place, echoes.bare_echo(Path(place)) as address:
            done = bare_sockets(address, ROW_BYTES, 1, seconds, Listener())
        return Figures(done.per_s, done.p50_us)
    if not load.clients:
        return measure_bare(load, daemon, seconds)
    return measure_clients(load, daemon.address(load.tenant), references, seconds)


def measure_bare(load: Load, daemon: Daemon, seconds: float) -> Figures:
    """The plan by itself."""
    command = [sys.executable, "-m", "trtd.cli.main", "bench", "--bare", load.tenant, load.model, "--json"]
    command += ["--config", str(daemon.config_file), "--batch", str(load.items), "--seconds", str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return Figures(found["items_per_s"], found["p50_s"] * 1e6)


def measure_clients(load: Load, address: str, references: Path, seconds: float) -> Figures:
    """Through the daemon, from several processes, as clients are."""
    processes = min(load.clients, PROCESSES)
    start = PROCESS.Barrier(processes)
    results = PROCESS.Queue()
    args = (load, address, references, seconds, load.clients // processes, start, results)
    callers = [PROCESS.Process(target=call_in_threads, args=args) for _ in range(processes)]
    for caller in callers:
        caller.start()
    timings = [timing for _ in callers for timing in results.get(timeout=seconds + 120)]
    for caller in callers:
        caller.join()
    queue, batch, compute, total = (statistics.median(values) * 1e6 for values in zip(*timings, strict=True))
    return Figures(len(timings) * load.items / seconds, total, (queue, batch, compute))


def call_in_threads(
    load: Load, address: str, references: Path, seconds: float, threads: int, start: Any, results: Any
) -> None:
    """Some of a load's clients, each in a thread; where the time of each of their requests went."""
    with ThreadPoolExecutor(threads) as pool:
        together = threading.Barrier(threads, start.wait)
        futures = [pool.submit(call, load, address, references, seconds, together.wait) for _ in range(threads)]
        results.put([tuple(timing) for future in futures for timing in future.result()])


def call(load: Load, address: str, references: Path, seconds: float, start: Callable[[], object]) -> list[Timing]:
    """Ask as fast as the window allows."""
    inputs, expected = sample(load, references)
    allowed = plans.allowed_difference(load.model)
    with Client(address, timeout=60) as client:
        shared = {}
        for name, array in inputs.items():
            shared[name] = client.empty(array.shape, array.dtype)
            shared[name][:] = array

        def answers(seconds: float) -> Iterator[Answer]:
            ends_at = time.monotonic() + seconds
            if load.window > 1:
                yield from client.infer_many(load.model, until(ends_at, shared), window=load.window)
            while time.monotonic() < ends_at:
                yield client.infer(load.model, shared)

        def ask(seconds: float) -> list[Timing]:
            timings: list[Timing] = []
            for answer in answers(seconds):
                if len(timings) % 100 == 0:
                    compare(answer.outputs, expected, allowed)
                timings.append(answer.timing)
            return timings

        ask(WARM_S)
        start()
        return ask(seconds)


def until(ends_at: float, inputs: plans.Arrays) -> Iterator[plans.Arrays]:
    """The same inputs again and again."""
    while time.monotonic() < ends_at:
        yield inputs


def sample(load: Load, references: Path) -> tuple[plans.Arrays, plans.Arrays]:
    """Inputs of a request and their answer: the items of a reference, repeated."""
    inputs, outputs = plans.read_reference(references / f"{load.model}.ref.npz", "three")

    def repeated(arrays: plans.Arrays) -> plans.Arrays:
        return {
            name: np.ascontiguousarray(np.concatenate([array] * load.items)[: load.items])
            for name, array in arrays.items()
        }

    return repeated(inputs), repeated(outputs)


def compare(got: Any, expected: plans.Arrays, allowed: float) -> None:
    """Raise where an answer is wrong: its figures would be worth nothing."""
    for name, array in expected.items():
        difference = float(np.max(np.abs(got[name].astype(np.float64) - array.astype(np.float64))))
        if difference > allowed:
            raise AssertionError(f"output {name!r} differs by {difference}")
