"""Colour, width and progress: on terminals only, and plain lines elsewhere."""

from __future__ import annotations

import io

import pytest

from trtd.cli import terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("no descriptor")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("NO_COLOR", "TERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def test_colour_only_where_it_is_wanted(monkeypatch):
    """A terminal has colour unless NO_COLOR is set or it is a dumb one; a pipe never has."""
    assert terminal.has_colour(Terminal())
    assert not terminal.has_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.has_colour(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not terminal.has_colour(Terminal())


def test_pipes_have_no_width(monkeypatch):
    """A pipe takes lines of any length, whatever COLUMNS says; a terminal that does not tell has what COLUMNS says."""
    monkeypatch.setenv("COLUMNS", "100")
    assert terminal.columns(io.StringIO()) is None
    assert terminal.columns(Terminal()) == 100
    monkeypatch.delenv("COLUMNS")
    assert terminal.columns(Terminal()) == 80


@pytest.mark.parametrize(
    ("part", "bar"), [(0, "[....]"), (0.5, "[##..]"), (1, "[####]"), (7.0, "[####]"), (-1, "[....]")]
)
def test_bars(part, bar):
    """A bar is full by its part and never wider than it may be."""
    assert terminal.bar(part, 4) == bar


def test_progress_on_a_terminal():
    """Progress replaces one line, with a bar of what is done of the most that was left, and leaves no trace."""
    stream = Terminal()
    with terminal.ProgressLine(stream) as line:
        line.show({"waiting_for": "a", "left": 8})
        line.show({"waiting_for": "a", "left": 2})
        last = stream.getvalue().rpartition(terminal.CLEAR_LINE)[2]
        assert last == "[###############.....] waiting for a"
        line.show({"waiting_for": "x" * 500, "left": 2})
        assert len(stream.getvalue().rpartition(terminal.CLEAR_LINE)[2]) == 79
    assert stream.getvalue().endswith(terminal.CLEAR_LINE)


def test_progress_in_a_pipe():
    """Where there is no terminal, a plain line comes every two seconds, and none for a command that is done at once."""
    pipe = io.StringIO()
    with terminal.ProgressLine(pipe, now=0.0) as line:
        for now in (0.5, 1.9, 2.1, 3.0, 4.2):
            line.show({"queued": 3, "left": 1}, now=now)
    assert pipe.getvalue() == "queued 3\nqueued 3\n"
