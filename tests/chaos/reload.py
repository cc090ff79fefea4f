"""SIGHUPs with one changed or broken configuration after the other, under load: tenants that stay notice nothing."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from typing import Any

import numpy as np

from tests.chaos.figures import Report, spread_ms
from tests.chaos.load import PAUSE_S, Load
from tests.chaos.stage import PATIENT, RESTART_AT_ONCE, Stage, instant_of, stage, tenant_tables
from tests.support import daemon as harness

GUESTS = ("guest-1", "guest-2", "guest-3")
"""Tenants that come, change and go."""
SETTLE_EVERY = 20
"""After so many reloads all tenants must become ready."""


def run(count: int = 500, seed: int = 0, pause_s: float = PAUSE_S) -> Report:
    """Change the configuration at random and send SIGHUP, again and again, each after the outcome of the one before."""
    rng = random.Random(seed)
    report = Report("reload")
    kinds: Counter[str] = Counter()
    took_s: list[float] = []
    guests: dict[str, Any] = {}
    with stage() as daemon:
        pids, generations = daemon.pids(), daemon.generations()
        with Load(daemon, daemon.questions, pause_s=pause_s) as load:
            for number in range(1, count + 1):
                kind, event = _change(daemon, guests, rng)
                kinds[kind] += 1
                daemon.log.read()
                seen = len(daemon.log.lines)
                sent_at = time.monotonic()
                daemon.send_signal(signal.SIGHUP)
                took_s.append(instant_of(daemon.log.wait(event, seen)) - sent_at)
                if number % SETTLE_EVERY == 0:
                    _settle(daemon, guests, kinds)
        daemon.configure(tenant_tables(daemon.models, **daemon.settings))
        daemon.call("reload")
        daemon.wait_status(lambda status: len(status["tenants"]) == len(pids), "the end of all guests", 60.0)
        if (daemon.pids(), daemon.generations()) != (pids, generations):
            report.broken.append(f"unaffected workers were {pids} {generations}, are {daemon.pids()}")
        if daemon.status()["router"]["restarts"]:
            report.broken.append("the router died")
        report.broken += daemon.account_problems()
    judgement = load.judge()
    report.broken += judgement.broken()
    report.figures = {
        "reloads": count,
        **judgement.figures(),
        "kinds": dict(kinds),
        "sighup_to_outcome": spread_ms(took_s),
    }
    return report


def _guest(rng: random.Random) -> dict[str, Any]:
    """A tenant's table, one of very many."""
    return harness.tenant(
        restart=RESTART_AT_ONCE,
        health=PATIENT,
        replicas=rng.choice((1, 1, 2)),
        weight=rng.randrange(1, 10),
        slots=rng.choice((1, 2)),
        queue={"max_requests": rng.randrange(1, 2000)},
    )


def _change(daemon: Stage, guests: dict[str, Any], rng: random.Random) -> tuple[str, str]:
    """Write another configuration; what was changed, and the log event that a reload must give."""
    name = rng.choice(GUESTS)
    if rng.random() < 0.25:
        text = daemon.config_file.read_text(encoding="utf-8")
        broken = rng.choice(
            (text + "\n[tenants", text + "\nsurprise = 1\n", text.replace("path", "pasth"), "version = 9")
        )
        daemon.config_file.write_text(broken, encoding="utf-8")
        kind, event = "invalid", "config.reload_failed"
    else:
        event = "config.reloaded"
        if name not in guests:
            kind, guests[name] = "added", _guest(rng)
        elif rng.random() < 0.4:
            kind = "removed"
            del guests[name]
        else:
            kind, guests[name] = "changed", _guest(rng)
        daemon.configure({**tenant_tables(daemon.models, **daemon.settings), **guests})
    return kind, event


def _settle(daemon: Stage, guests: dict[str, Any], kinds: Counter[str]) -> None:
    """Write the last good configuration again, wait until it is in force everywhere, and ask each guest."""
    daemon.configure({**tenant_tables(daemon.models, **daemon.settings), **guests})
    daemon.call("reload")
    daemon.wait_status(
        lambda status: (
            status["health"] == "ready" and guests.keys() == {each["name"] for each in status["tenants"]} & set(GUESTS)
        ),
        "the guests of the last configuration",
        60.0,
    )
    for name in guests:
        with daemon.client(name) as client:
            client.infer("echo", {"x": np.ones((1, 4), np.float32)}, timeout=30)
        kinds["guests_asked"] += 1
