"""What is compared with what, and the ratios: taken inside each repeat, shown as their median and their spread."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.bench import callers, loads
from tests.bench.echoes import Echoes, shared_sockets
from tests.bench.loads import Listener, Load, Measurement

SIZES = {"1 KiB": 1 << 10, "64 KiB": 64 << 10, "600 KiB": 600 << 10, "4 MiB": 4 << 20}
IN_FLIGHT = (1, 8, 32)
CALLERS = (8, 32)
WINDOWS = (64, 256)
PIPELINED_UP_TO_BYTES = 64 << 10
ARENAS_FROM_BYTES = 600 << 10

BARE, BARE_PIPELINED, BARE_THREADS, SHARED = "bare", "bare pipelined", "bare threads", "bare shared"
FRAMES, PIPELINED, TASKS, THREADS, ARENAS = "trtd", "trtd pipelined", "trtd tasks", "trtd threads", "trtd arenas"

SIDES: dict[str, tuple[str, Load]] = {
    BARE: ("bare", loads.bare_sockets),
    BARE_PIPELINED: ("bare", loads.bare_pipelined),
    BARE_THREADS: ("bare", callers.bare_threads),
    SHARED: ("shared", shared_sockets),
    FRAMES: ("trtd", loads.trtd_sockets),
    PIPELINED: ("trtd", loads.trtd_pipelined),
    TASKS: ("trtd", callers.trtd_tasks),
    THREADS: ("trtd", callers.trtd_threads),
    ARENAS: ("trtd", loads.trtd_arenas),
}
"""Which of the echoes, and what it is given to do."""


class Cell(NamedTuple):
    """One measurement: a side, with so many requests in flight."""

    side: str
    in_flight: int


class Comparison(NamedTuple):
    """One cell in terms of another."""

    ours: Cell
    theirs: Cell


class Ratio(NamedTuple):
    """Over the repeats."""

    median: float
    smallest: float
    largest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.smallest:.2f} to {self.largest:.2f})"


def ratio(values: Sequence[float]) -> Ratio:
    """Of these."""
    return Ratio(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """A comparison at one size.

    Attributes:
        size: by its name.
        comparison: which.
        ours: measurements, one for each repeat.
        theirs: likewise.
    """

    size: str
    comparison: Comparison
    ours: Sequence[Measurement]
    theirs: Sequence[Measurement]

    @property
    def p50(self) -> Ratio:
        """Time to an answer: smaller is better."""
        return ratio([mine.p50_us / other.p50_us for mine, other in zip(self.ours, self.theirs, strict=True)])

    @property
    def throughput(self) -> Ratio:
        """Answers per second: larger is better."""
        return ratio([mine.per_s / other.per_s for mine, other in zip(self.ours, self.theirs, strict=True)])

    def record(self) -> dict[str, Any]:
        """For `--json`."""
        ours, theirs = self.comparison
        return {
            "size": self.size,
            "load": ours.side,
            "in_flight": ours.in_flight,
            "against": theirs.side,
            "against_in_flight": theirs.in_flight,
            **{f"{name}_{what}": statistics.median(getattr(each, what) for each in measured)
               for name, measured in (("ours", self.ours), ("theirs", self.theirs))
               for what in ("p50_us", "p99_us", "per_s")},
            "p50_ratio": self.p50._asdict(),
            "throughput_ratio": self.throughput._asdict(),
        }  # fmt: skip

    def line(self) -> str:
        """For people; `HEAD` stands above."""
        ours, theirs = self.comparison
        record = self.record()
        return (
            f"{self.size:>8}  {ours.side + ', ' + str(ours.in_flight):<20} {record['ours_p50_us']:>8.0f}"
            f" {record['ours_per_s']:>8.0f}  {theirs.side + ', ' + str(theirs.in_flight):<20}"
            f" {record['theirs_p50_us']:>8.0f} {record['theirs_per_s']:>8.0f}"
            f"  {self.p50!s:<22} {self.throughput}"
        )

    def markdown(self) -> str:
        """As a row of the README's table."""
        ours, theirs = self.comparison
        record = self.record()
        cells = [
            self.size, ours.side, ours.in_flight, f"{record['ours_p50_us']:.0f}", self.p50,
            f"{record['ours_per_s']:.0f}", self.throughput, f"{theirs.side}, {theirs.in_flight}",
        ]  # fmt: skip
        return f"| {' | '.join(map(str, cells))} |"


MARKDOWN_HEAD = """\
| size | load | in flight | p50 us | ratio | per s | ratio | to |
|---|---|---|---|---|---|---|---|"""
HEAD = (
    f"{'SIZE':>8}  {'LOAD, IN FLIGHT':<20} {'P50 US':>8} {'PER S':>8}  {'AGAINST, IN FLIGHT':<20} {'P50 US':>8}"
    f" {'PER S':>8}  {'P50 RATIO':<22} THROUGHPUT RATIO"
)


def comparisons(size: int) -> list[Comparison]:
    """What is compared at a size, in the order of measuring: what belongs together is measured back to back."""
    found = []
    for in_flight in IN_FLIGHT:
        bare = Cell(BARE, in_flight)
        found.append(Comparison(Cell(FRAMES, in_flight), bare))
        if size >= ARENAS_FROM_BYTES:
            ours = Cell(ARENAS, in_flight)
            found += [Comparison(ours, bare), Comparison(ours, Cell(SHARED, in_flight))]
    if size <= PIPELINED_UP_TO_BYTES:
        for in_flight in CALLERS:
            found.append(Comparison(Cell(TASKS, in_flight), Cell(BARE, in_flight)))
            found.append(Comparison(Cell(THREADS, in_flight), Cell(BARE_THREADS, in_flight)))
        for window in WINDOWS:
            ours = Cell(PIPELINED, window)
            found += [Comparison(ours, Cell(BARE, IN_FLIGHT[-1])), Comparison(ours, Cell(BARE_PIPELINED, window))]
    return found


def cells(compared: Sequence[Comparison]) -> list[Cell]:
    """Each once, in the order of measuring."""
    return list(dict.fromkeys(cell for one in compared for cell in (one.theirs, one.ours)))


def measure(echoes: Echoes, size: str, repeats: int, seconds: float) -> Iterator[Row]:
    """All comparisons at one size."""
    compared = comparisons(SIZES[size])
    rounds: list[Mapping[Cell, Measurement]] = []
    for _ in range(repeats):
        measured = {}
        for cell in cells(compared):
            echo, load = SIDES[cell.side]
            measured[cell] = load(getattr(echoes, echo), SIZES[size], cell.in_flight, seconds, Listener())
        rounds.append(measured)
    for one in compared:
        yield Row(size, one, [each[one.ours] for each in rounds], [each[one.theirs] for each in rounds])
