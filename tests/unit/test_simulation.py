"""The simulator itself: a seed is a world, and the same world each time."""

from __future__ import annotations

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.promises import PromiseBroken
from tests.simulation.scenario import Simulation


def story(seed: int) -> list[tuple[object, ...]]:
    simulation = Simulation(seed)
    simulation.run()
    calls = [(call.id, call.tenant, call.value, call.sent_at, call.outcome) for call in simulation.promises.calls]
    return [(simulation.clock.events, simulation.clock.now), *calls]


def run_seeds(count: int) -> None:
    for seed in range(count):
        Simulation(seed).run()


@pytest.mark.parametrize("seed", [1, 42, 1810])
def test_the_same_seed_replays_exactly(seed):
    """Two runs of one seed tell the same story: events, instants, requests and outcomes."""
    assert story(seed) == story(seed)


def test_different_seeds_are_different_worlds():
    """Two seeds tell different stories."""
    assert story(1) != story(2)


def test_a_planted_bug_breaks_a_promise():
    """A restarted router that is told of no worker is noticed within a few dozen seeds, and not once it is mended."""
    with BUGS["a restarted router is not told of workers"](), pytest.raises(PromiseBroken):
        run_seeds(60)
    run_seeds(20)
