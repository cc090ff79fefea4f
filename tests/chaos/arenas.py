"""Clients that misuse shared memory, and clients that die with it, while three tenants are asked and answers checked.

What is counted in the end is what the kernel knows: descriptors and mappings of the router and of the worker.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.chaos.figures import Report
from tests.chaos.holdings import held, kept, wait_until_empty
from tests.chaos.load import PAUSE_S, Load
from tests.chaos.stage import stage
from tests.chaos.visitors import TARGET, apart, ask_once, kill_clients, target
from tests.support.arenas import PAGE_BYTES, SEALS, Offerer, closing, make_memfd
from trtd.wire import addresses
from trtd.wire.arenas import ArenaOffered, ArenaWithdrawn, encode_packet

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


def run(connections: int = 10_000, kills: int = 200, seed: int = 0, pause_s: float = PAUSE_S) -> Report:
    """Misuse the socket, then kill clients; the other tenants go on, and nothing stays behind."""
    report = Report("arenas")
    with stage(target()) as daemon:
        pids, router = daemon.pids(), daemon.status()["router"]
        watched = {"router": router["pid"], "worker": pids[TARGET]}
        path = addresses.arenas_path(str(daemon.runtime_dir), TARGET)
        Offerer(Path(path)).close()
        ask_once(daemon)
        wait_until_empty(daemon, [TARGET])
        before = {name: held(pid) for name, pid in watched.items()}
        with Load(daemon, daemon.questions, pause_s=pause_s) as load:
            report.figures["connections"] = dict(apart(storm, path, connections, seed))
            report.figures["clients_killed"] = kills
            report.figures["of_them_answered_before"] = apart(kill_clients, daemon.address(TARGET), kills, seed)
            ask_once(daemon)
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
