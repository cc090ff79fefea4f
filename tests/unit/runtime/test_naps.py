"""Naps end before the run does, and follow runs that become shorter."""

from __future__ import annotations

import pytest

from trtd.runtime.naps import MARGIN_S, RECENT, SPIN_S, Naps


@pytest.mark.parametrize("took_s", [0.0, 25e-6, 160e-6])
def test_short_runs_are_not_slept_through(took_s):
    """What is over within the time of spinning is waited for awake, and so is the very first run."""
    naps = Naps()
    assert naps.nap_s == 0.0
    naps.note(took_s)
    assert naps.nap_s == 0.0


def test_the_shortest_recent_run_decides():
    """A large batch among small ones delays none of them; what is long ago does not count."""
    naps = Naps()
    naps.note(400e-6)
    for _ in range(RECENT - 1):
        naps.note(5e-3)
    assert naps.nap_s == pytest.approx(400e-6 - MARGIN_S)
    naps.note(5e-3)
    assert naps.nap_s == pytest.approx(5e-3 - MARGIN_S)


def test_the_rest_of_a_steady_run_falls_into_the_time_of_spinning():
    """Whoever naps for a steady run sees its end without being woken, even if the clock wakes late by some of it."""
    naps = Naps()
    naps.note(1e-3)
    assert 0 < 1e-3 - naps.nap_s < SPIN_S


def test_naps_follow_runs_that_become_shorter():
    """A wait that ended during its nap took as long as the nap; the naps shrink until they end before the run."""
    naps = Naps()
    naps.note(5e-3)
    run_s, late_s = 300e-6, 60e-6
    for _ in range(RECENT * 60):
        nap_s = naps.nap_s
        naps.note(max(run_s, nap_s + late_s if nap_s else 0.0))
    assert naps.nap_s + late_s <= run_s
