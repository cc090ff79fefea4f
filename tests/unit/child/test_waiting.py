"""Waits that look for a moment before they sleep, on a clock that only looks and yields move."""

from __future__ import annotations

import pytest

from trtd.child import waiting
from trtd.core.polling import CROWDED_S, BusyPoll

LIMIT_S = 0.001
LOOK_S = 0.0001


class Scene:
    """A clock, a processor to yield, and something that comes at an instant."""

    def __init__(self, comes_at: float, yield_s: float = 0.0) -> None:
        self.now = 0.0
        self.comes_at = comes_at
        self.yield_s = yield_s
        self.looks = 0
        self.sleeps: list[float | None] = []
        self.poll = BusyPoll(LIMIT_S)
        self.poll.note_waited(0.0)

    def monotonic(self) -> float:
        return self.now

    def sched_yield(self) -> None:
        self.now += self.yield_s

    def look(self) -> bool:
        self.looks += 1
        self.now += LOOK_S
        return self.now >= self.comes_at

    def sleep(self, timeout_s: float | None) -> bool:
        self.sleeps.append(timeout_s)
        self.now = max(self.now, self.comes_at)
        return True

    def wait(self, timeout_s: float | None = None, **rest) -> bool:
        return waiting.wait(self.poll, timeout_s, self.look, self.sleep, **rest)


@pytest.fixture
def scene(monkeypatch):
    def make(comes_at, **fields):
        made = Scene(comes_at, **fields)
        monkeypatch.setattr(waiting, "time", made)
        monkeypatch.setattr(waiting, "os", made)
        return made

    return make


def test_what_comes_soon_is_found_without_sleeping(scene):
    """Something that comes within the window is found by looking."""
    made = scene(comes_at=0.0004)
    assert made.wait()
    assert (made.looks, made.sleeps) == (4, [])
    assert made.poll.window_s(made.now) == LIMIT_S


def test_what_comes_late_is_slept_for_and_not_looked_for_the_next_time(scene):
    """When the window is over the wait goes on asleep, and the next one sleeps at once."""
    made = scene(comes_at=1.0)
    assert made.wait(5.0)
    assert made.sleeps == [5.0]
    looks, made.comes_at = made.looks, 2.0
    made.wait()
    assert made.looks == looks


def test_it_looks_no_longer_than_the_timeout(scene):
    """A timeout that is shorter than the window bounds the looking too."""
    made = scene(comes_at=1.0)
    made.wait(3.5 * LOOK_S)
    assert made.looks == 4


def test_it_sleeps_once_it_may_not_look(scene):
    """Where somebody else in the process begins to run, the rest of the wait is slept."""
    made = scene(comes_at=0.0009)
    made.wait(may_look=lambda: made.looks < 2)
    assert (made.looks, made.sleeps) == (2, [None])


def test_it_sleeps_where_the_processor_is_wanted(scene):
    """After one yield that others made use of it looks no more."""
    made = scene(comes_at=1.0, yield_s=CROWDED_S)
    made.wait()
    assert (made.looks, made.sleeps) == (1, [None])
