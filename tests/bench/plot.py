"""The comparisons as a picture. Needs matplotlib (`pip install 'trtd[bench]'`), imported when a plot is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.comparisons import ARENAS, BARE, BARE_THREADS, FRAMES, PIPELINED, TASKS, THREADS, Ratio, Row
from trtd.errors import Usage

COLOURS = {FRAMES: "#3b6ea5", ARENAS: "#c8553d", PIPELINED: "#5b8c5a", TASKS: "#8e6c8a", THREADS: "#b08d57"}


def check() -> None:
    """See that a plot can be made, before anything is measured for it.

    Raises:
        trtd.errors.Usage: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise Usage("--plot needs matplotlib; install it with: pip install 'trtd[bench]'") from None


def plot(rows: Sequence[Row], title: str, path: Path) -> None:
    """Both ratios to the bare two-hop echo, one bar for each load, with their spread."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if row.comparison.theirs.side in (BARE, BARE_THREADS)]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 1.5 + 0.27 * len(shown)), sharey=True)
    _bars(left, shown, [row.p50 for row in shown], "p50 / bare echo (smaller is better)")
    _bars(right, shown, [row.throughput for row in shown], "throughput / bare echo (larger is better)")
    left.set_yticks(range(len(shown)), [_label(row) for row in shown])
    left.invert_yaxis()
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    right.legend(handles, list(COLOURS), loc="lower right", frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _bars(axes: Any, rows: Sequence[Row], ratios: Sequence[Ratio], name: str) -> None:
    medians = [each.median for each in ratios]
    spread = [
        [each.median - each.smallest for each in ratios],
        [each.largest - each.median for each in ratios],
    ]
    colours = [COLOURS[row.comparison.ours.side] for row in rows]
    axes.barh(range(len(rows)), medians, color=colours, xerr=spread, ecolor="#333333", capsize=2)
    axes.axvline(1.0, color="#333333", linewidth=1, linestyle="--")
    axes.set_xlabel(name)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _label(row: Row) -> str:
    ours, theirs = row.comparison
    beside = "" if ours.in_flight == theirs.in_flight else f" (bare: {theirs.in_flight})"
    return f"{row.size}, {ours.in_flight} in flight{beside}"
