"""Clients whose inputs end workers: how many deaths are free, how long they are barred, and what is forgiven."""

from __future__ import annotations

from tests.support.desk import make_worker
from trtd.core.offenders import FIRST_BAR_S, FREE_DEATHS, MAX_DEATHS, MAX_OFFENDERS, Offenders

ANN, BOB = "uid:1000", "uid:1001"
WINDOW_S = 600.0


def offend(offenders: Offenders, count: int, now: float = 100.0, owner: str = ANN, first: int = 0) -> list[bool]:
    lives = (make_worker(generation=first + number) for number in range(count))
    return [offenders.note(owner, life, now, WINDOW_S) for life in lives]


def test_a_few_deaths_are_free_and_each_further_one_doubles_the_bar():
    """Beyond FREE_DEATHS each death bars for twice as long as the one before, and never for longer than the window."""
    offenders = Offenders()
    assert offend(offenders, FREE_DEATHS) == [False] * FREE_DEATHS
    assert offenders.barred_s(ANN, 100.0) == 0.0
    for number in range(12):
        assert offend(offenders, 1, first=FREE_DEATHS + number) == [True]
        assert offenders.barred_s(ANN, 100.0) == min(WINDOW_S, FIRST_BAR_S * 2**number)


def test_nobody_else_is_barred():
    """What one client does is not held against another one."""
    offenders = Offenders()
    offend(offenders, FREE_DEATHS + 1)
    assert offenders.barred_s(BOB, 100.0) == 0.0
    assert offend(offenders, FREE_DEATHS, owner=BOB) == [False] * FREE_DEATHS


def test_a_bar_ends_and_a_further_death_lengthens_the_next_one():
    """After its time the client is heard again; it is on probation until its deaths leave the window."""
    offenders = Offenders()
    offend(offenders, FREE_DEATHS + 1)
    assert offenders.barred_s(ANN, 100.0 + FIRST_BAR_S) == 0.0
    assert not offenders.bars
    offend(offenders, 1, now=200.0, first=50)
    assert offenders.barred_s(ANN, 200.0) == 2 * FIRST_BAR_S
    assert offend(offenders, 1, now=200.0 + WINDOW_S, first=60) == [False]


def test_what_a_worker_survived_is_forgiven():
    """The deaths that an input was suspected of count no more once a worker answers it."""
    offenders = Offenders()
    offend(offenders, FREE_DEATHS)
    offenders.forgive(ANN, [make_worker(generation=0), make_worker(generation=1)])
    offenders.forgive(BOB, [make_worker(generation=0)])
    assert offend(offenders, 2, first=100) == [False, False]
    assert offend(offenders, 1, first=200) == [True]


def test_the_same_death_counts_once():
    """A life that is told twice ended once."""
    offenders = Offenders()
    for _ in range(10):
        offend(offenders, FREE_DEATHS)
    assert len(offenders.deaths_of(ANN)) == FREE_DEATHS
    assert not offenders.bars


def test_the_worst_are_shown_first_and_only_while_they_are_barred():
    """What operators see: who, until when, and for how many deaths."""
    offenders = Offenders()
    offend(offenders, FREE_DEATHS + 1, owner=BOB)
    offend(offenders, FREE_DEATHS + 3)
    assert [(one.owner, one.deaths) for one in offenders.barred(100.0)] == [
        (ANN, FREE_DEATHS + 3),
        (BOB, FREE_DEATHS + 1),
    ]
    assert [one.owner for one in offenders.barred(100.0 + FIRST_BAR_S)] == [ANN]


def test_memory_is_bounded():
    """Neither many clients nor many deaths of one use more memory than the bounds; release forgets all."""
    offenders = Offenders()
    for number in range(2 * MAX_OFFENDERS):
        offend(offenders, FREE_DEATHS + 1, owner=f"uid:{number}")
    assert len(offenders.bars) == MAX_OFFENDERS
    offend(offenders, 3 * MAX_DEATHS)
    assert len(offenders.deaths_of(ANN)) == MAX_DEATHS
    offenders.clear()
    assert not offenders.bars
    assert offenders.deaths_of(ANN) == ()
