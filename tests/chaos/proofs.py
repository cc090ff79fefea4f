"""The table of the proofs: what each is called, what it shows, and its numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.chaos import (
    arenas,
    connects,
    drains,
    flood,
    hangs,
    hostile,
    idle,
    pauses,
    reload,
    router,
    soak,
    starts,
    strangers,
    supervisor,
    workers,
)
from tests.chaos.figures import Report
from tests.chaos.load import PAUSE_S


@dataclass(frozen=True, slots=True)
class Option:
    """A number of a proof, or a switch, with the default that the full run uses."""

    name: str
    default: int | float | bool
    help: str


@dataclass(frozen=True, slots=True)
class Proof:
    """One proof.

    Attributes:
        summary: for `--help`.
        run: takes the options by name.
        options: its numbers.
    """

    summary: str
    run: Callable[[dict[str, Any]], Report]
    options: tuple[Option, ...]


SEED = Option("seed", 0, "which random choices")
PAUSE = Option("pause-ms", PAUSE_S * 1e3, "pause of each caller between an answer and its next request")


ARENAS = Option("arenas", False, "give the callers tensors that travel through shared memory")


def _killing(run: Callable[..., Report], *more: str) -> Callable[[dict[str, Any]], Report]:
    def call(options: dict[str, Any]) -> Report:
        named = {name: options[name] for name in ("arenas", *more)}
        return run(options["kills"], pause_s=options["pause-ms"] / 1e3, **named)

    return call


PROOFS: dict[str, Proof] = {
    "workers": Proof(
        "SIGKILL of workers under load",
        _killing(workers.run, "seed"),
        (Option("kills", 1000, "how many"), SEED, PAUSE, ARENAS),
    ),
    "router": Proof(
        "SIGKILL of the router under load",
        _killing(router.run, "seed"),
        (Option("kills", 100, "how many"), SEED, PAUSE, ARENAS),
    ),
    "supervisor": Proof(
        "SIGKILL of the supervisor under load, and its next start",
        _killing(supervisor.run),
        (Option("kills", 50, "how many"), PAUSE, ARENAS),
    ),
    "hangs": Proof(
        "workers stuck in native code",
        lambda options: hangs.run(options["count"], options["progress-s"], options["pause-ms"] / 1e3),
        (
            Option("count", 20, "hangs of each kind"),
            Option("progress-s", 2.0, "the tenants' [health] progress_s"),
            PAUSE,
        ),
    ),
    "pauses": Proof(
        "SIGSTOP of the supervisor, the router, a worker and all of them under load",
        lambda options: pauses.run(options["longest-s"], options["pause-ms"] / 1e3),
        (Option("longest-s", 30.0, "the longest stop, after those of 1 and 3 s"), PAUSE),
    ),
    "idle": Proof(
        "a hundred tenants that nobody asks: processor time",
        lambda options: idle.run(options["tenants"], options["seconds"]),
        (Option("tenants", 100, "how many"), Option("seconds", 30.0, "how long it is measured")),
    ),
    "starts": Proof(
        "one reload that replaces the workers of many tenants, under load",
        lambda options: starts.run(options["tenants"]),
        (Option("tenants", 80, "how many"),),
    ),
    "drains": Proof(
        "drain and resume under load, and drains that time out",
        lambda options: drains.run(
            options["count"], options["cut"], options["seed"], options["pause-ms"] / 1e3, arenas=options["arenas"]
        ),
        (
            Option("count", 200, "drains under load"),
            Option("cut", 10, "drains with too short a timeout"),
            SEED,
            PAUSE,
            ARENAS,
        ),
    ),
    "flood": Proof(
        "one tenant floods its endpoint, another one is measured",
        lambda options: flood.run(
            options["requests"], options["rounds"], options["processes"], arenas=options["arenas"]
        ),
        (
            Option("requests", 3000, "of the measured tenant in each phase"),
            Option("rounds", 3, "how often each phase comes"),
            Option("processes", 2, "that flood"),
            ARENAS,
        ),
    ),
    "hostile": Proof(
        "garbage, endless messages and raw connections at every socket",
        lambda options: hostile.run(options["connections"], options["seed"], options["pause-ms"] / 1e3),
        (Option("connections", 100_000, "raw connections"), SEED, PAUSE),
    ),
    "strangers": Proof(
        "users without any right open connections to every socket, another tenant is measured",
        lambda options: strangers.run(options["requests"], options["rounds"], options["processes"]),
        (
            Option("requests", 2000, "of the measured tenant in each phase"),
            Option("rounds", 3, "how often each phase comes"),
            Option("processes", 2, "that connect"),
        ),
    ),
    "arenas": Proof(
        "misuse of shared memory, and clients killed with requests in it",
        lambda options: arenas.run(
            options["connections"], options["kills"], options["seed"], options["pause-ms"] / 1e3
        ),
        (Option("connections", 10_000, "to the arenas' socket"), Option("kills", 200, "clients"), SEED, PAUSE),
    ),
    "connects": Proof(
        "clients that come, use shared memory and go, and clients that are killed",
        lambda options: connects.run(options["clients"], options["kills"], options["processes"], options["seed"]),
        (
            Option("clients", 10_000, "that come and go"),
            Option("kills", 500, "clients that are killed"),
            Option("processes", 2, "in which clients come and go"),
            SEED,
        ),
    ),
    "soak": Proof(
        "load of every kind for long, and what grows meanwhile",
        lambda options: soak.run(options["minutes"]),
        (Option("minutes", 10.0, "how long"),),
    ),
    "reload": Proof(
        "SIGHUPs with changing and invalid configurations under load",
        lambda options: reload.run(options["count"], options["seed"], options["pause-ms"] / 1e3),
        (Option("count", 500, "how many"), SEED, PAUSE),
    ),
}
