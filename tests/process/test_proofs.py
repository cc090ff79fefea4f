"""The proofs of `scripts/chaos` with numbers small enough for each run of the tests."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.chaos.proofs import PROOFS

NUMBERS: dict[str, dict[str, float]] = {
    "workers": {"kills": 10},
    "router": {"kills": 5},
    "supervisor": {"kills": 2},
    "hangs": {"count": 1},
    "drains": {"count": 5, "cut": 1},
    "flood": {"requests": 100, "rounds": 1},
    "hostile": {"connections": 1000},
    "arenas": {"connections": 300, "kills": 5},
    "connects": {"clients": 100, "kills": 5},
    "soak": {"minutes": 0.15},
    "reload": {"count": 20},
    "idle": {"tenants": 3, "seconds": 3},
    "starts": {"tenants": 6},
    "strangers": {"requests": 60, "rounds": 1},
}


BY_NAME_ALONE = {"pauses"}
"""It stops processes for whole seconds, twelve times."""

WITH_ARENAS: dict[str, dict[str, int]] = {
    "workers": {"kills": 5},
    "router": {"kills": 3},
    "supervisor": {"kills": 1},
    "drains": {"count": 3, "cut": 0},
    "flood": {"requests": 50, "rounds": 1},
}


def expect_to_hold(name: str, numbers: Mapping[str, float]) -> None:
    """Run a proof, and show what it found where a promise was broken."""
    proof = PROOFS[name]
    report = proof.run({option.name: option.default for option in proof.options} | numbers)
    assert not report.broken, "\n".join(report.lines())


def test_every_proof_is_run_here_or_by_name():
    """A new proof is run with small numbers in each run of the tests, or is named as one that takes too long."""
    assert set(NUMBERS) | BY_NAME_ALONE == set(PROOFS)


@pytest.mark.parametrize("name", NUMBERS)
def test_every_promise_holds(name):
    """No promise is broken."""
    expect_to_hold(name, NUMBERS[name])


@pytest.mark.parametrize("name", WITH_ARENAS)
def test_every_promise_holds_in_shared_memory(name):
    """None is broken when the callers' tensors travel in shared memory, and nothing of that is left behind."""
    expect_to_hold(name, WITH_ARENAS[name] | {"arenas": True})
