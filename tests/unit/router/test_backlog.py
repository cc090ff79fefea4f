"""What a tenant's clients have begun and not ended, and what they have not read: who may go on, and who loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from trtd.router.backlog import MOST_LOOKS, SMALL_BYTES, STALLED_LOOKS, Unfinished, Unread, choose_loser

MOST = 10 * SMALL_BYTES
LARGE = 6 * SMALL_BYTES


@dataclass(eq=False)
class FakeGuest:
    """What is looked at of a `Guest`."""

    uid: int = 1
    begun_bytes: int = 0
    taken_bytes: int = 0
    unread_bytes: int = 0
    read_step: int = 0

    @property
    def has_output(self) -> bool:
        return self.unread_bytes > 0


@pytest.fixture
def unfinished() -> Any:
    return Unfinished(MOST)


def begin(unfinished: Any, *sizes: int) -> list[Any]:
    guests = [FakeGuest(begun_bytes=size) for size in sizes]
    for guest in guests:
        unfinished.note(guest)
    return guests


def test_above_the_bound_only_the_first_large_message_goes_on(unfinished):
    """Below it everybody goes on; above it the first, whoever has begun little, and the next once that one is whole."""
    first, second, small = begin(unfinished, LARGE, SMALL_BYTES, SMALL_BYTES)
    assert all(map(unfinished.may_go_on, (first, second, small)))
    second.begun_bytes = LARGE
    unfinished.note(second)
    assert [unfinished.may_go_on(one) for one in (first, second, small, FakeGuest())] == [True, False, True, True]
    unfinished.forget(first)
    assert unfinished.may_go_on(second)
    for guest in (second, small):
        unfinished.forget(guest)
    assert not unfinished
    assert unfinished.total_bytes == 0


def test_who_keeps_others_waiting_has_to_go_on(unfinished):
    """The first one is found once nothing more comes of it, or after all its time; never while nobody has to wait."""
    (first,) = begin(unfinished, LARGE)
    assert [unfinished.find_stalled() for _ in range(2 * STALLED_LOOKS)] == [None] * 2 * STALLED_LOOKS
    (slow,) = begin(unfinished, LARGE)
    looks = [unfinished.find_stalled() for _ in range(STALLED_LOOKS + 2)]
    assert looks == [None] * (STALLED_LOOKS + 1) + [first]
    unfinished.forget(first)
    begin(unfinished, LARGE)
    found = []
    for _ in range(MOST_LOOKS + 1):
        slow.taken_bytes += 1
        found.append(unfinished.find_stalled())
    assert found == [None] * MOST_LOOKS + [slow]


def test_who_read_last_longest_ago_loses_of_the_user_with_most():
    """Other users and whoever reads keep theirs; the connection with most of it does not count against the bound."""
    other = FakeGuest(2, unread_bytes=50, read_step=1)
    asleep = FakeGuest(1, unread_bytes=40, read_step=2)
    reading = FakeGuest(1, unread_bytes=40, read_step=9)
    guests: Any = [other, reading, asleep, FakeGuest(3)]
    assert choose_loser(guests, 130, 80) is None
    assert choose_loser(guests, 130, 79) is asleep
    assert choose_loser([FakeGuest(1)], 0, 0) is None  # type: ignore[list-item]
    assert choose_loser([other], 50, 1) is None  # type: ignore[list-item]


def test_steps_grow():
    """Each is larger than those before."""
    unread = Unread()
    assert unread.step() < unread.step()
