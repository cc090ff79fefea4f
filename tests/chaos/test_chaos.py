"""The proofs with numbers for a quarter of an hour; `scripts/chaos` runs them with any others."""

from __future__ import annotations

import pytest

from tests.chaos.proofs import PROOFS

NUMBERS: dict[str, dict[str, float]] = {
    "workers": {"kills": 100},
    "router": {"kills": 30},
    "supervisor": {"kills": 15},
    "hangs": {"count": 5},
    "pauses": {"longest-s": 10.0},
    "idle": {"tenants": 40},
    "starts": {"tenants": 30},
    "drains": {"count": 50, "cut": 3},
    "flood": {"requests": 1000, "rounds": 2},
    "hostile": {"connections": 20_000},
    "strangers": {"requests": 500, "rounds": 1},
    "arenas": {"connections": 3000, "kills": 50},
    "connects": {"clients": 3000, "kills": 100},
    "soak": {"minutes": 3},
    "reload": {"count": 100},
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PROOFS)
def test_every_promise_holds(name):
    """No promise is broken."""
    proof = PROOFS[name]
    report = proof.run({option.name: option.default for option in proof.options} | NUMBERS[name])
    assert not report.broken, "\n".join(report.lines())
