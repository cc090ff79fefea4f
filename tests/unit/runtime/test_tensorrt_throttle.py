"""The soft watermark slows: one run at a time above it, all side by side below it."""

from __future__ import annotations

import threading

import pytest

from trtd.runtime.tensorrt.throttle import Throttle

PATIENCE_S = 30.0


class Runs:
    """Two threads that each want to run, and how many do at the same time."""

    def __init__(self, throttle):
        self.throttle = throttle
        self.inside = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.told = []
        self.threads = [threading.Thread(target=self._run) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        with self.throttle.turn() as is_slowed:
            self.told.append(is_slowed)
            self.inside.release()
            self.may_end.wait(PATIENCE_S)

    def end(self):
        self.may_end.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)


def test_below_it_runs_go_side_by_side():
    """Both runs are inside at the same time, and neither is told to give anything back."""
    runs = Runs(Throttle(lambda: False))
    assert runs.inside.acquire(timeout=PATIENCE_S)
    assert runs.inside.acquire(timeout=PATIENCE_S)
    runs.end()
    assert runs.told == [False, False]


def test_above_it_they_take_turns():
    """The second run begins when the first one has ended, and both know that they were slowed."""
    runs = Runs(Throttle(lambda: True))
    assert runs.inside.acquire(timeout=PATIENCE_S)
    assert not runs.inside.acquire(timeout=0.05)
    runs.end()
    assert runs.told == [True, True]


def test_a_run_that_fails_gives_its_turn_back():
    """The next run is not kept waiting by an exception."""
    throttle = Throttle(lambda: True)
    with pytest.raises(ValueError, match="refused"), throttle.turn():
        raise ValueError("refused")
    with throttle.turn() as is_slowed:
        assert is_slowed
