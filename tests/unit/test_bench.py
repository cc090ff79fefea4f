"""The benchmark's arithmetic: what is measured for a size, and ratios that are taken inside their repeat."""

from __future__ import annotations

import pytest

from tests.bench.comparisons import (
    ARENAS,
    BARE,
    FRAMES,
    PIPELINED,
    SHARED,
    SIZES,
    Cell,
    Comparison,
    Row,
    cells,
    comparisons,
)
from tests.bench.loads import Measurement, measurement


def make_measurement(p50_us: float, per_s: float) -> Measurement:
    """Of one repeat."""
    return Measurement(per_s=per_s, count=100, p50_us=p50_us, p99_us=2 * p50_us)


def make_row(*pairs: tuple[Measurement, Measurement]) -> Row:
    """Of repeats, trtd's measurement before the bare one."""
    comparison = Comparison(Cell(FRAMES, 8), Cell(BARE, 8))
    return Row("1 KiB", comparison, [mine for mine, _ in pairs], [other for _, other in pairs])


def test_a_ratio_is_taken_inside_its_repeat():
    """A machine that is slow for a whole repeat changes no ratio; the median is that of the ratios."""
    pairs = [(2 * pace, pace) for pace in (100.0, 1000.0)] + [(300.0, 100.0)]
    row = make_row(*((make_measurement(ours, 10.0), make_measurement(theirs, 40.0)) for ours, theirs in pairs))
    assert row.p50 == (2.0, 2.0, 3.0)
    assert row.throughput == (0.25, 0.25, 0.25)


def test_a_row_is_told_in_full():
    """The record names both loads, and the line shows the same figures."""
    row = make_row((make_measurement(200.0, 10.0), make_measurement(100.0, 40.0)))
    record = row.record()
    assert (record["load"], record["against"], record["in_flight"]) == (FRAMES, BARE, 8)
    assert (record["ours_p50_us"], record["theirs_per_s"]) == (200.0, 40.0)
    assert record["p50_ratio"] == {"median": 2.0, "smallest": 2.0, "largest": 2.0}
    assert "2.00 (2.00 to 2.00)" in row.line()
    assert "| 2.00 (2.00 to 2.00) | 10 | 0.25 (0.25 to 0.25) | bare, 8 |" in row.markdown()


@pytest.mark.parametrize(("size", "side"), [("1 KiB", PIPELINED), ("4 MiB", ARENAS)])
def test_each_size_has_the_loads_that_suit_it(size, side):
    """Small tensors are pipelined, large ones shared; each cell is measured once, and no comparison lacks one."""
    compared = comparisons(SIZES[size])
    measured = cells(compared)
    assert len(set(measured)) == len(measured)
    assert {cell for one in compared for cell in one} == set(measured)
    assert {cell.side for cell in measured} & {PIPELINED, ARENAS} == {side}
    assert (Cell(SHARED, 1) in measured) == (side == ARENAS)


def test_quantiles_of_the_latencies():
    """The order of the answers does not matter, and those that were not timed count all the same."""
    done = measurement([0.003, 0.001, 0.002], 30, 2.0)
    assert (done.per_s, done.count, done.p50_us) == (15.0, 30, 2000.0)
