"""Clients that misuse shared memory, and clients that die with it, while three tenants are asked and answers checked.

What is counted in the end is what the kernel knows: descriptors and mappings of the router and of the worker.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import random
import select
import signal
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import trtd
from tests.chaos.figures import Report
from tests.chaos.holdings import held, kept, wait_until_empty
from tests.chaos.load import PAUSE_S, Load
from tests.chaos.stage import PATIENT, RESTART_AT_ONCE, Stage, stage
from tests.support import daemon as harness
from tests.support.arenas import PAGE_BYTES, SEALS, Offerer, closing, make_memfd
from trtd.wire import addresses
from trtd.wire.arenas import ArenaOffered, ArenaWithdrawn, encode_packet

TARGET = "target"
SHAPE = (1, 64 * 1024)
"""256 KiB: large enough for shared memory."""
MAX_LIFE_S = 0.1
"""How long a client lives at most, once it has its first answer, before it is killed."""
MAX_GROWTH_BYTES = 64 << 20
MIB = 1 << 20


def storm(path: str, count: int, seed: int) -> Counter[str]:
    """Connections to the arenas' socket that do one thing each and go; how often each was done."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    deeds: dict[str, Callable[[Offerer], None]] = {
        "silent": lambda _: None,
        "left_at_once": lambda offerer: offerer.close(),
        "half_closed": lambda offerer: offerer.socket.shutdown(socket.SHUT_WR),
        "garbage": lambda offerer: offerer.send(rng.randbytes(rng.randrange(1, 3000))),
        "offered": lambda offerer: _offer(offerer, SEALS),
        "offered_without_seals": lambda offerer: _offer(offerer, 0),
        "offered_and_shrunk": _offer_and_shrink,
        "offered_many": lambda offerer: _offer(offerer, SEALS, copies=200),
        "offered_twenty_at_once": lambda offerer: _offer(offerer, SEALS, beside=20),
        "offered_a_pipe": _offer_pipe,
        "withdrew_others": lambda offerer: offerer.send(encode_packet(ArenaWithdrawn(rng.getrandbits(63)))),
    }
    names = sorted(deeds)
    for _ in range(count):
        name = rng.choice(names)
        with suppress(OSError):
            offerer = Offerer(Path(path))
            with suppress(OSError):
                if rng.choice((True, False)):
                    offerer.welcome()
                deeds[name](offerer)
                outcomes[name] += 1
            offerer.close()
    return outcomes


def _offer(offerer: Offerer, seals: int, copies: int = 1, beside: int = 0) -> None:
    with closing(make_memfd(seals=seals)) as (fd,):
        for number in range(copies):
            offerer.send(encode_packet(ArenaOffered(number, PAGE_BYTES)), fd, *([fd] * beside))


def _offer_and_shrink(offerer: Offerer) -> None:
    with closing(make_memfd(MIB, seals=fcntl.F_SEAL_GROW)) as (fd,):
        offerer.send(encode_packet(ArenaOffered(1, MIB)), fd)
        os.ftruncate(fd, 0)


def _offer_pipe(offerer: Offerer) -> None:
    with closing(*os.pipe()) as fds:
        offerer.send(encode_packet(ArenaOffered(1, PAGE_BYTES)), fds[0])


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


def run(connections: int = 10_000, kills: int = 200, seed: int = 0, pause_s: float = PAUSE_S) -> Report:
    """Misuse the socket, then kill clients; the other tenants go on, and nothing stays behind."""
    report = Report("arenas")
    model = harness.script(inputs=[{"name": "x", "dtype": "float32", "shape": [None, SHAPE[1]]}])
    others = {TARGET: harness.tenant(model, restart=RESTART_AT_ONCE, health=PATIENT)}
    with stage(others) as daemon:
        pids, router = daemon.pids(), daemon.status()["router"]
        watched = {"router": router["pid"], "worker": pids[TARGET]}
        path = addresses.arenas_path(str(daemon.runtime_dir), TARGET)
        Offerer(Path(path)).close()
        _ask_once(daemon)
        wait_until_empty(daemon, [TARGET])
        before = {name: held(pid) for name, pid in watched.items()}
        with Load(daemon, daemon.questions, pause_s=pause_s) as load:
            report.figures["connections"] = dict(_apart(storm, path, connections, seed))
            report.figures["clients_killed"] = kills
            report.figures["of_them_answered_before"] = _apart(kill_clients, daemon.address(TARGET), kills, seed)
            _ask_once(daemon)
        wait_until_empty(daemon, [TARGET])
        report.figures |= {f"{name}_held_before": dict(each) for name, each in before.items()}
        report.broken += kept(watched, before)
        report.figures |= {f"{name}_holds": dict(held(pid)) for name, pid in watched.items()}
        after = daemon.status()["router"]
        if daemon.pids() != pids or after["pid"] != router["pid"]:
            report.broken.append(f"processes were {pids} and {router['pid']}, are {daemon.pids()} and {after['pid']}")
        report.broken += daemon.account_problems()
        growth = after["rss_bytes"] - router["rss_bytes"]
        report.figures["router_grew_mib"] = growth >> 20
        if growth > MAX_GROWTH_BYTES:
            report.broken.append(f"the router grew by {growth >> 20} MiB")
    judgement = load.judge()
    report.broken += judgement.broken()
    report.figures |= judgement.figures()
    return report


def _apart(work: Callable[..., Any], *args: Any) -> Any:
    """The result of a function, run in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def _ask_once(daemon: Stage) -> None:
    with daemon.client(TARGET) as client:
        x = client.empty(SHAPE)
        x[...] = 2.0
        for _ in range(8):
            answer = client.infer("echo", {"x": x}, timeout=30)
            assert np.array_equal(answer["x"], x), "an answer to the target is wrong"
