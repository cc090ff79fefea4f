"""The proofs of `scripts/chaos` with numbers small enough for each run of the tests."""

from __future__ import annotations

import pytest

from tests.chaos.proofs import PROOFS

NUMBERS: dict[str, dict[str, int]] = {
    "workers": {"kills": 10},
    "router": {"kills": 5},
    "supervisor": {"kills": 2},
    "hangs": {"count": 1},
    "drains": {"count": 5, "cut": 1},
    "flood": {"requests": 100, "rounds": 1},
    "hostile": {"connections": 1000},
    "arenas": {"connections": 300, "kills": 5},
    "reload": {"count": 20},
}


@pytest.mark.parametrize("name", PROOFS)
def test_every_promise_holds(name):
    """No promise is broken."""
    proof = PROOFS[name]
    report = proof.run({option.name: option.default for option in proof.options} | NUMBERS[name])
    assert not report.broken, "\n".join(report.lines())
