"""How descriptors are shared out: by tenant and kind, and never all of them."""

from __future__ import annotations

import pytest

from trtd.router import descriptors
from trtd.router.descriptors import ARENAS, GUESTS, OFFERERS, OWN_FDS, SPARED, WORKERS, Descriptors


@pytest.mark.parametrize("most", [256, 1024, 20_000, 1 << 20])
@pytest.mark.parametrize("tenants", [1, 3, 20])
def test_all_shares_together_leave_a_reserve(monkeypatch, most, tenants):
    """With every tenant at its bounds and all workers connected, the router still has descriptors for itself."""
    monkeypatch.setattr(descriptors, "most_descriptors", lambda: most)
    shares = Descriptors(lambda: tenants)
    taken = tenants * sum(shares.share(1 << 30, part) for part in (GUESTS, OFFERERS, ARENAS))
    assert taken + OWN_FDS <= shares.max_fd < most * (SPARED[1] - SPARED[0]) / SPARED[1] + 1
    assert shares.max_fd + descriptors.most_workers(1 << 30) < most
    assert WORKERS[0] / WORKERS[1] < SPARED[0] / SPARED[1]


def test_where_there_are_plenty_the_bound_is_the_kinds_own(monkeypatch):
    """A share is never more than what the kind asks for, and never nothing."""
    monkeypatch.setattr(descriptors, "most_descriptors", lambda: 1 << 20)
    assert Descriptors(lambda: 2).share(512, OFFERERS) == 512
    assert Descriptors(lambda: 1 << 20).share(512, OFFERERS) == 1
    assert descriptors.most_workers(4096) == 4096
