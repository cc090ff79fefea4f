"""`scripts/bench` in small: every load for a size runs, and each gives figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import comparisons, echoes, loads, plot, spending
from trtd.errors import ExitCode

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("size", ["1 KiB", "600 KiB"])
def test_every_load_gives_figures(size):
    """Bare, pipelined, shared and trtd's own loads all get answers of the right size."""
    with echoes.running() as found:
        rows = list(comparisons.measure(found, size, repeats=2, seconds=0.05))
    assert len(rows) == len(comparisons.comparisons(comparisons.SIZES[size]))
    for row in rows:
        record = row.record()
        assert json.loads(json.dumps(record)) == record
        assert all(value > 0 for name, value in record.items() if name.endswith(("_us", "_per_s")))


BLOCK_MATPLOTLIB = """
import runpy, sys
sys.modules["matplotlib"] = None
sys.argv = ["scripts/bench", "--quick", "--plot", "unused.png"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_plot_without_matplotlib_is_refused_at_once():
    """One line says what to install, before anything is measured."""
    command = [sys.executable, "-c", BLOCK_MATPLOTLIB]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    assert "trtd[bench]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_plot_is_a_png(tmp_path):
    """The ratios to the bare echo are drawn."""
    plot.check()
    with echoes.running() as found:
        rows = list(comparisons.measure(found, "1 KiB", repeats=1, seconds=0.05))
    plot.plot(rows, "a run", tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("load", sorted(loads.LOADS))
def test_processor_time_is_counted_for_each_process(tmp_path, load):
    """Client, router and worker all show what a request costs them, whichever load asks."""
    with echoes.trtd_echo(tmp_path, REPOSITORY) as daemon:
        spent = spending.spend(daemon, REPOSITORY, spending.Ask("600 KiB", load, 2), 0.2)
    assert spent.per_s > 0
    assert set(spent.us) == {"client", "router", "worker"}
    assert all(sum(times.values()) > 0 for times in spent.us.values())
