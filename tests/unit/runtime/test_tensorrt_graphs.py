"""Which shapes get a graph: those that come again, within bounds, and again after a failure. Pure."""

from __future__ import annotations

import random

from trtd.runtime.tensorrt import graphs
from trtd.runtime.tensorrt.graphs import Graphs


def test_a_shape_that_comes_again_gets_one():
    """The first run is too early, the second is not; what is kept is found."""
    kept = Graphs(most=2)
    assert kept.find("a") is None
    assert [kept.note_run("a"), kept.note_run("a")] == [False, True]
    kept.keep("a", "graph of a")
    assert kept.find("a") == "graph of a"
    assert len(kept) == 1


def test_without_places_nothing_is_due():
    """Where no graph may be kept, none is made, and nothing is counted."""
    kept = Graphs(most=0)
    assert not any(kept.note_run("a") for _ in range(1000))
    assert not kept._counts


def test_counts_are_bounded():
    """Shapes that come once each use no memory without end, and those that came last are still counted."""
    kept = Graphs(most=2)
    for shape in range(10 * graphs.MAX_COUNTED):
        assert not kept.note_run(shape)
    assert len(kept._counts) == graphs.MAX_COUNTED
    assert kept.note_run(10 * graphs.MAX_COUNTED - 1)


def run(kept, shape):
    """A run of a shape; whether it should be captured after it."""
    return kept.find(shape) is None and kept.note_run(shape)


def test_the_longest_unused_gives_its_place():
    """A use keeps a graph; a shape without one has to come often, with none of the other's runs in between."""
    kept = Graphs(most=2)
    kept.keep("a", 1)
    kept.keep("b", 2)
    run(kept, "a")
    assert kept.is_full
    due = []
    for _ in range(graphs.RUNS_BEFORE_EVICTION):
        run(kept, "a")
        due.append(run(kept, "c"))
    assert due == [False] * (graphs.RUNS_BEFORE_EVICTION - 1) + [True]
    assert kept.take_oldest() == 2
    kept.keep("c", 3)
    assert kept.take_all() == [1, 3]
    assert len(kept) == 0


def test_shapes_that_come_in_turns_do_not_chase_each_other():
    """Where more shapes come than there are places, those with a graph keep it."""
    kept = Graphs(most=32)
    for shape in range(32):
        kept.keep(shape, shape)
    rng = random.Random(1)
    assert not any(run(kept, rng.randrange(64)) for _ in range(50_000))
    shifted = [run(kept, rng.randrange(40, 72)) for _ in range(32 * graphs.RUNS_BEFORE_EVICTION)]
    assert any(shifted), "what comes no more gives its place"


def test_failures_are_tried_again_ever_later():
    """Each failure doubles the pause up to a bound, for all shapes of the slot; a success ends that."""
    kept = Graphs(most=2)

    def runs_until_due():
        return next(count for count in range(1, 10**6) if kept.note_run("a"))

    assert runs_until_due() == graphs.RUNS_BEFORE_CAPTURE
    pauses = []
    for _ in range(14):
        pauses.append(kept.note_failure("a"))
        assert runs_until_due() > pauses[-1]
    assert pauses[:3] == [graphs.PAUSE_RUNS, 2 * graphs.PAUSE_RUNS, 4 * graphs.PAUSE_RUNS]
    assert pauses[-2:] == [graphs.MAX_PAUSE_RUNS] * 2
    kept.keep("a", 1)
    assert kept.note_failure("b") == graphs.PAUSE_RUNS


def test_a_graph_is_to_bring_back_what_it_takes():
    """The longer the last capture took, the more often a shape has to come, within bounds, unless nobody waits."""
    for took_s, runs in ((0.0, 2), (100 * graphs.SAVED_S, 100), (3600.0, graphs.MAX_RUNS_BEFORE_CAPTURE)):
        kept = Graphs(most=9)
        kept.keep("a", 1, took_s)
        assert next(count for count in range(1, 10**6) if run(kept, "b")) == runs
        kept.is_eager = True
        assert [run(kept, "c"), run(kept, "c")] == [False, True]
