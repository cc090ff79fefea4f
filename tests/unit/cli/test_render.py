"""How status records, lengths of time, sizes and tables look."""

from __future__ import annotations

import io

import pytest

from tests.support.status import make_child, make_status, make_tenant
from trtd.cli import render
from trtd.wire.status import TenantStatus


def lines(*tenants: TenantStatus, colour: bool = False) -> list[str]:
    return render.status_lines(make_status(*tenants), colour=colour)


def test_a_ready_tenant():
    """One row with everything an operator looks for, and one line about the daemon."""
    header, row, last = lines(make_tenant())
    assert header.split() == " ".join(render.STATUS_COLUMNS).split()
    assert row.split() == ["a", "ready", "12s", "4242", "3", "2", "-", "4", "5", "1234", "1.2ms", "-", "64M"]
    assert last == "daemon pid 7, up 2m; router ready, pid 8, generation 1, 1M; isolation process"


def test_a_tenant_in_trouble():
    """The worker's own state, when it is tried again, its last cause, its limit and the reason stand there."""
    fault = {"kind": "killed", "message": "killed by SIGKILL", "blame": "tenant", "permanent": False}
    worker = make_child(state="backoff", restart_in_s=0.8, pid=None, last_fault=fault, memory_limit_bytes=1024**3)
    _, row, reason, _ = lines(make_tenant(health="waiting", reason="no worker yet", workers=[worker]))
    assert "waiting: backoff 800ms" in row
    assert "killed by SIGKILL" in row
    assert row.endswith("64M/1G")
    assert reason == "a: no worker yet"


def test_several_workers():
    """Each further worker has its own row, without repeating the tenant's traffic."""
    workers = [make_child("a/0"), make_child("a/1", state="warming", pid=9)]
    _, first, second, _ = lines(make_tenant(health="degraded", workers=workers))
    assert first.split()[:2] == ["a", "degraded"]
    assert second.split()[:2] == ["a/1", "warming"]
    assert second.split()[-6:-1] == ["-"] * 5


def test_a_tenant_without_workers():
    """A drained tenant has a row too."""
    _, row, _ = lines(make_tenant(health="drained", workers=[]))
    assert row.split()[:3] == ["a", "drained", "-"]


def test_a_long_cause_is_cut():
    """A cause does not push the other columns off the screen."""
    fault = {"kind": "crashed", "message": "x" * 300, "blame": "tenant", "permanent": False}
    assert max(len(line) for line in lines(make_tenant(workers=[make_child(last_fault=fault)]))) < 180


def test_colour_only_where_it_is_wanted(monkeypatch):
    """Rows are coloured by their state on a terminal, never with NO_COLOR, never in a pipe, never in the header."""
    header, good, bad, _ = lines(make_tenant("a"), make_tenant("b", health="unavailable"), colour=True)
    assert "\x1b" not in header
    assert good.startswith(render.COLOURS["ready"])
    assert bad.startswith(render.OTHER_COLOUR)
    assert not any("\x1b" in line for line in lines(make_tenant()))

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert render.has_colour(Terminal())
    assert not render.has_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not render.has_colour(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not render.has_colour(Terminal())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0, "0us"), (0.000_012_4, "12us"), (0.000_999_9, "1ms"), (0.0015, "1.5ms"), (0.9994, "999ms"),
        (0.9999, "1s"), (59.0, "59s"), (60, "1m"), (3599, "60m"), (7200, "2h"), (86_400 * 3, "3d"),
    ],
)  # fmt: skip
def test_lengths_of_time(seconds, text):
    """A length of time is short and has the unit that suits it."""
    assert render.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0B"), (1023, "1023B"), (2048, "2K"), (1024**4 * 3, "3.0T")])
def test_sizes(count, text):
    """A size has the binary unit that suits it."""
    assert render.size(count) == text


def test_tables_are_aligned():
    """Left and right columns line up and no line ends with blanks."""
    assert render.table(("NAME", "N"), [("a", "100"), ("long name", "1")], left={"NAME"}) == [
        "NAME         N",
        "a          100",
        "long name    1",
    ]


def test_progress_only_on_a_terminal():
    """Progress replaces one line on a terminal and leaves no trace there; elsewhere nothing is written."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with render.ProgressLine(stream) as line:
        line.show({"queued": 3, "leased": 1})
        assert stream.getvalue().endswith("queued 3, leased 1")
    assert stream.getvalue().endswith(render.CLEAR_LINE)
    pipe = io.StringIO()
    with render.ProgressLine(pipe) as line:
        line.show({"queued": 3})
    assert pipe.getvalue() == ""
