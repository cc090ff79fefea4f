"""Which requests run together in a worker, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtd.core.batching import Batcher, BatchLimits, Waiting

GREEDY = BatchLimits(max_items=4, max_delay_s=0.0)
PATIENT = BatchLimits(max_items=4, max_delay_s=0.5)


@dataclass(slots=True, eq=False)
class Numbered(Waiting):
    """A request with something to tell it by."""

    work: Any


def make_waiting(work: Any = None, **changes: Any) -> Numbered:
    """One item of group "g" that arrived at 10.0, never expires and is run at once."""
    values: dict[str, Any] = {
        "group": "g",
        "items": 1,
        "arrived_at": 10.0,
        "expires_at": float("inf"),
        "limits": GREEDY,
        "work": work,
    }
    return Numbered(**(values | changes))


def make_batcher(*waiting: Numbered) -> Batcher[Numbered]:
    """A batcher in which these wait."""
    batcher: Batcher[Numbered] = Batcher()
    batcher.extend(waiting)
    return batcher


def works(batch: list[Numbered] | None) -> list[Any] | None:
    """The work of a batch."""
    return None if batch is None else [waiting.work for waiting in batch]


def test_without_delay_a_batch_is_what_is_there():
    """Greedy: all waiting requests of the group run together at once, in order."""
    batcher = make_batcher(make_waiting(1), make_waiting(2))
    assert works(batcher.take(10.0)) == [1, 2]
    assert batcher.take(10.0) is None
    assert len(batcher) == 0
    assert batcher.next_due() is None


def test_a_batch_is_closed_by_the_age_of_its_first_request():
    """With a delay nothing is due before the first request is that old; then all of its group goes."""
    batcher = make_batcher(make_waiting(1, limits=PATIENT), make_waiting(2, limits=PATIENT, arrived_at=10.4))
    assert batcher.take(10.49) is None
    assert batcher.next_due() == 10.5
    assert works(batcher.take(10.5)) == [1, 2]


def test_a_batch_is_closed_by_size():
    """As soon as the items reach the limit, the batch is due; what does not fit waits on."""
    batcher = make_batcher(*(make_waiting(work, limits=PATIENT, items=2) for work in (1, 2, 3)))
    assert works(batcher.take(10.0)) == [1, 2]
    assert batcher.take(10.0) is None
    assert works(batcher.take(10.5)) == [3]


def test_a_request_that_does_not_fit_beside_others_waits_for_the_next_batch():
    """Order inside a group is kept: a smaller request behind one that does not fit does not overtake it."""
    batcher = make_batcher(make_waiting(1, items=3), make_waiting(2, items=2), make_waiting(3, items=1))
    assert works(batcher.take(10.0)) == [1]
    assert works(batcher.take(10.0)) == [2, 3]


def test_a_request_larger_than_a_batch_runs_alone():
    """A request with more items than a batch may have is a batch of its own."""
    batcher = make_batcher(make_waiting(1, items=9), make_waiting(2))
    assert works(batcher.take(10.0)) == [1]
    assert works(batcher.take(10.0)) == [2]


def test_requests_without_group_run_alone_and_at_once():
    """Group None never shares a batch and never waits, whatever the delay."""
    batcher = make_batcher(*(make_waiting(work, group=None, limits=PATIENT) for work in (1, 2)))
    assert works(batcher.take(10.0)) == [1]
    assert works(batcher.take(10.0)) == [2]


def test_the_oldest_due_group_goes_first():
    """Among due groups the one whose first request arrived first runs first; one that is not due holds nobody up."""
    batcher = make_batcher(
        make_waiting(1, group="waits", limits=PATIENT, arrived_at=9.9),
        make_waiting(2, group="second", arrived_at=10.1),
        make_waiting(3, group="first", arrived_at=10.0),
    )
    assert [works(batcher.take(10.2)) for _ in range(3)] == [[3], [2], None]


def test_expired_requests_are_given_back_and_never_run():
    """A request nobody waits for is taken out apart; the rest of its group runs without it."""
    batcher = make_batcher(
        make_waiting(1, expires_at=10.2), make_waiting(2), make_waiting(3, group="h", expires_at=10.1)
    )
    assert batcher.take_expired(10.05) == []
    assert works(batcher.take_expired(10.2)) == [1, 3]
    assert works(batcher.take(10.2)) == [2]
    assert len(batcher) == 0


def test_taking_a_batch_before_the_expired_is_a_defect():
    """A caller that forgets the expired ones is told so."""
    batcher = make_batcher(make_waiting(1, expires_at=10.2))
    with pytest.raises(ValueError, match="expired"):
        batcher.take(10.2)


def test_next_due_is_never_later_than_an_expiry():
    """The instant to look again covers the first request that expires while it waits for its batch."""
    batcher = make_batcher(make_waiting(1, limits=PATIENT, expires_at=10.3))
    assert batcher.next_due() == 10.3


def test_what_has_left_does_not_hide_a_later_expiry():
    """After the first to expire ran, the others still expire in time, and an empty batcher waits for nothing."""
    batcher = make_batcher(
        make_waiting(1, expires_at=10.1), make_waiting(2, group="h", limits=PATIENT, expires_at=10.3)
    )
    assert works(batcher.take(10.0)) == [1]
    assert batcher.next_due() <= 10.3
    assert batcher.take_expired(10.2) == []
    assert batcher.next_due() == 10.3
    assert works(batcher.take_expired(10.3)) == [2]
    assert batcher.next_due() is None
    batcher.extend([make_waiting(3)])
    assert batcher.next_due() == 10.0


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", None]),
            st.integers(0, 6),
            st.floats(0.0, 0.2),
            st.floats(0.1, 3.0),
        ),
        max_size=30,
    )
)
def test_every_request_leaves_once_and_no_batch_breaks_its_limits(arrivals):
    """Each request leaves in one batch or as expired; batches are of one group, in order, and not too large."""
    batcher: Batcher[Numbered] = Batcher()
    now = 0.0
    expired: list[Numbered] = []
    run: list[Numbered] = []
    for work, (group, items, gap_s, life_s) in enumerate(arrivals):
        now += gap_s
        batcher.extend(
            [make_waiting(work, group=group, items=items, arrived_at=now, expires_at=now + life_s, limits=PATIENT)]
        )
        expired += batcher.take_expired(now)
        run += check_batch(batcher.take(now), now)
    while (due := batcher.next_due()) is not None:
        now = max(now, due)
        expired += batcher.take_expired(now)
        run += check_batch(batcher.take(now), now)
    assert sorted(waiting.work for waiting in expired + run) == list(range(len(arrivals)))
    for group in ("a", "b"):
        order = [waiting.work for waiting in run if waiting.group == group]
        assert order == sorted(order)


def check_batch(batch: list[Numbered] | None, now: float) -> list[Numbered]:
    """The batch, after a look at what every batch has to keep."""
    if batch is None:
        return []
    assert len({waiting.group for waiting in batch}) == 1
    assert len(batch) == 1 or batch[0].group is not None
    assert len(batch) == 1 or sum(waiting.items for waiting in batch) <= PATIENT.max_items
    assert all(waiting.expires_at > now for waiting in batch)
    return batch
