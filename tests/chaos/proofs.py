"""The table of the proofs: what each is called, what it shows, and its numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.chaos import router, supervisor, workers
from tests.chaos.figures import Report
from tests.chaos.load import PAUSE_S


@dataclass(frozen=True, slots=True)
class Option:
    """A number of a proof, with the default that the full run uses."""

    name: str
    default: int | float
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


def _killing(run: Callable[..., Report], *more: str) -> Callable[[dict[str, Any]], Report]:
    def call(options: dict[str, Any]) -> Report:
        return run(options["kills"], pause_s=options["pause-ms"] / 1e3, **{name: options[name] for name in more})

    return call


PROOFS: dict[str, Proof] = {
    "workers": Proof(
        "SIGKILL of workers under load",
        _killing(workers.run, "seed"),
        (Option("kills", 1000, "how many"), SEED, PAUSE),
    ),
    "router": Proof(
        "SIGKILL of the router under load",
        _killing(router.run, "seed"),
        (Option("kills", 100, "how many"), SEED, PAUSE),
    ),
    "supervisor": Proof(
        "SIGKILL of the supervisor under load, and its next start",
        _killing(supervisor.run),
        (Option("kills", 50, "how many"), PAUSE),
    ),
}
