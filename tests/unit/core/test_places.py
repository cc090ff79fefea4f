"""Places for connections: how many there are, and how many one owner may hold."""

from __future__ import annotations

from trtd.core.places import Places


def test_one_owner_gets_no_more_than_a_share():
    """The bound of one owner holds for each alone, the bound of all for everybody."""
    places = Places(5, 2)
    assert [places.take("ann") for _ in range(2)] == [None, None]
    assert places.take("ann") == "too many connections: 2 of the same owner are open, the most is 2"
    assert [places.take(owner) for owner in ("bob", "bob", "eve")] == [None] * 3
    assert places.take("eve") == "too many connections: 5 are open, the most is 5"
    assert (len(places), places.held_by("ann"), places.held_by("nobody")) == (5, 2, 0)


def test_a_place_that_was_given_back_is_free():
    """Whoever leaves makes room for itself and for others, and nothing is remembered of it."""
    places = Places(1, 1)
    for owner in range(100):
        assert places.take(owner) is None
        assert places.take(owner) is not None
        places.leave(owner)
    assert len(places) == 0
    assert places.held_by(99) == 0
