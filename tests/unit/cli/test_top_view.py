"""The screen of `trtd top`, drawn into text."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tests.support.status import make_child, make_status, make_tenant
from trtd.cli.top_view import SORT_KEYS, Screen, gauge, sparkline

GIB = 1024**3
KILLED = {"kind": "killed", "message": "killed by SIGKILL", "blame": "tenant", "permanent": False}
DEVICE = {
    "live_bytes": 3 * GIB, "peak_bytes": GIB, "hard_bytes": 4 * GIB, "refused_count": 0, "refused_bytes": 0,
    "is_high": False, "pool_bytes": GIB, "driver_bytes": 2 * GIB, "unaccounted_bytes": GIB // 2, "verdict": "ok",
    "is_hard_derived": False, "allocations": 0, "allocated_bytes": 0, "largest_bytes": 0, "models": [],
}  # fmt: skip


def counters(answered: int) -> dict[str, int]:
    names = ("accepted", "failed", "refused", "resent", "replayed", "expired", "stale", "abandoned")
    return {**dict.fromkeys(names, 0), "answered": answered}


def make_record(*tenants: Any, uptime_s: float = 90.0) -> Any:
    status: Any = make_status(*tenants)
    status["daemon"]["uptime_s"] = uptime_s
    return status


def drawn(screen: Screen, width: int = 80, height: int = 24) -> list[str]:
    """The lines of the screen as a terminal of this size shows them."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, force_terminal=True)
    console.print(screen.picture(width, height))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def shown(*tenants: Any, **size: int) -> list[str]:
    screen = Screen()
    screen.take(make_record(*tenants))
    return drawn(screen, **size)


def order(screen: Screen) -> list[str]:
    """The tenants from top to bottom."""
    return [line.split()[0] for line in drawn(screen)[4:] if line[:2] in {"a ", "b ", "c "}]


def test_eighty_columns_show_what_matters():
    """Throughput, latency, queue and memory as bars, restarts, the last fault and what is unsigned, in 80 columns."""
    worker = make_child("vision/0", last_fault=KILLED, memory_limit_bytes=128 * 1024**2, restarts=3)
    lines = shown(make_tenant("vision", workers=[worker], queued=400, leased=112), make_tenant("ranking"))
    assert max(map(len, lines)) <= 80
    assert lines[0] == "2 of 2 tenants ready, 2469 requests/s"
    assert lines[3].split() == ["TENANT", "STATE", "REQ/S", "P99", "QUEUE", "MEMORY", "RST"]
    row = next(line for line in lines if line.startswith("vision "))
    assert row.split()[:3] == ["vision", "ready", "1234"]
    assert "█████····· 400+112" in row
    assert "█████····· 64M/128M" in row
    assert row.split()[-1] == "3"
    assert "vision: last fault: killed by SIGKILL" in lines
    assert "Engines are not signed: who can write their files decides what runs." in lines
    assert lines[-1].startswith("q quit")


@pytest.mark.parametrize(("width", "more"), [(100, ["P50"]), (140, ["P50", "LAST", "FAULT"])])
def test_wider_screens_show_more(width, more):
    """With room there are more columns, and still no line is broken."""
    lines = shown(make_tenant("vision", workers=[make_child(last_fault=KILLED)]), width=width)
    assert set(more) <= set(lines[3].split())
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 10), (120, 30), (200, 50), (60, 15)])
def test_nothing_is_larger_than_the_screen(width, height):
    """Long names, many tenants and long reasons fit any screen, and what is left out is counted."""
    tenants = [make_tenant(f"{'x' * 50}{index}", health="waiting", reason="r" * 200) for index in range(60)]
    lines = shown(*tenants, width=width, height=height)
    assert max(map(len, lines)) <= width
    assert len(lines) <= height
    assert any(line.startswith("and ") and line.endswith(" more") for line in lines)


def test_device_memory_stands_before_host_memory():
    """A tenant on a GPU shows its ledger against the watermark, and what the driver counts beside it."""
    row = shown(make_tenant("vision", workers=[make_child(device=DEVICE)]))[4]
    assert "████████·· 3G/4G+512M gpu" in row


def test_a_replacement_that_failed_is_noted():
    """The reason stands below the table, though the tenant is ready and its last fault is older."""
    replacement = {"state": "failed", "left": ["a/0"], "reason": "successor a/1 did not become ready: truncated"}
    worker = make_child(last_fault=KILLED)
    screen = shown(make_tenant("a", workers=[worker], replacement=replacement))
    assert any("a: not replaced: successor a/1 did not become ready: truncated" in line for line in screen)
    assert not any("last fault:" in line for line in screen)


def test_rates_are_measured_between_records():
    """Throughput is what was answered over the last few records, so that one in which nothing was told is no gap."""
    screen = Screen()
    for uptime_s, answered in [(10.0, 100), (12.0, 150), (13.0, 150), (14.0, 300), (15.0, 450)]:
        screen.take(make_record(make_tenant("a", counters=counters(answered)), uptime_s=uptime_s))
    assert list(screen.rates["a"]) == pytest.approx([1234.5, 25.0, 50 / 3, 50.0, 100.0])


@pytest.mark.parametrize(("uptime_s", "answered"), [(1.0, 500), (20.0, 3)])
def test_another_daemon_counts_from_zero(uptime_s, answered):
    """After a restart of the daemon its own figure comes first; a tenant that is gone is forgotten."""
    screen = Screen()
    for uptime, count in [(10.0, 100), (12.0, 150), (uptime_s, answered)]:
        screen.take(make_record(make_tenant("a", counters=counters(count)), uptime_s=uptime))
    assert screen.rates["a"][-1] == 1234.5
    screen.take(make_record(make_tenant("b", counters=counters(1))))
    assert screen.rates.keys() == {"b"}


def test_keys():
    """`s` goes through the orders and round again, `r` turns the rows about, `q` is the end, other keys are nothing."""
    screen = Screen()
    screen.take(make_record(make_tenant("a", queued=1), make_tenant("b", queued=3), make_tenant("c", queued=2)))
    assert order(screen) == ["a", "b", "c"]
    screen.press("r")
    assert order(screen) == ["c", "b", "a"]
    screen.press("r")
    seen = []
    for _ in SORT_KEYS:
        assert screen.press("s")
        seen.append(screen.sort)
        if screen.sort == "queue":
            assert order(screen) == ["b", "c", "a"]
    assert seen == [*list(SORT_KEYS)[1:], "name"]
    assert screen.press("x")
    assert not screen.press("q")


def test_a_daemon_that_is_away():
    """Before the first record the error is all there is; later it stands below the last picture."""
    screen = Screen(error="no daemon is running")
    assert drawn(screen) == ["no daemon is running"]
    screen.take(make_record(make_tenant("a")))
    screen.error = "the daemon went away"
    assert "the daemon went away" in drawn(screen)
    screen.take(make_record(make_tenant("a")))
    assert "the daemon went away" not in drawn(screen)


def test_small_pictures():
    """A line of bars has its highest value full, a gauge is never wider than its cells."""
    assert sparkline([0.0, 5.0, 10.0]) == "▁▅█"  # type: ignore[arg-type]
    assert sparkline([0.0, 0.0]) == "▁▁"  # type: ignore[arg-type]
    assert gauge(3.0, "x").plain == "██████████ x"
    assert gauge(0.0, "x").plain == "·········· x"
