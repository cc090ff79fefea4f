"""Log lines: their two looks, what cannot be written, and repeated events."""

from __future__ import annotations

import fcntl
import io
import json
import os
import select
import subprocess
import sys

import pytest

from trtd import observe


@pytest.fixture
def lines():
    stream = io.StringIO()
    observe.configure("json", "info", stream=stream, fields={"process": "test"})
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    observe.configure()


def test_json_lines_carry_event_and_fields(lines):
    """One JSON object per line holds time, level, event, bound fields and the fields of the call."""
    observe.get_logger(tenant="alpha").bind(generation=3).info("worker.exited", cause="killed\nby hand")
    (line,) = lines()
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "info",
        "event": "worker.exited",
        "process": "test",
        "tenant": "alpha",
        "generation": 3,
        "cause": "killed\nby hand",
    }


def test_lesser_levels_are_left_out(lines):
    """What is below the configured level is not written."""
    log = observe.get_logger()
    log.debug("a.b")
    log.warning("c.d")
    log.error("e.f")
    assert [(line["level"], line["event"]) for line in lines()] == [("warning", "c.d"), ("error", "e.f")]


def test_console_lines_are_one_line_each():
    """On a console an event is one readable line, whatever stands in its fields."""
    stream = io.StringIO()
    observe.configure("console", stream=stream)
    observe.get_logger(tenant="alpha").info("worker.exited", cause="two\nlines")
    observe.configure()
    (line,) = stream.getvalue().splitlines()
    assert "worker.exited" in line
    assert "tenant=alpha" in line


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_long_line_never_blocks(log_format):
    """A line is cut to what a pipe that has room takes whole, so a reader that stands still holds up no writer."""
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    with os.fdopen(source, "rb") as reader, os.fdopen(sink, "w") as stream:
        os.write(sink, b"x" * (fcntl.fcntl(sink, fcntl.F_GETPIPE_SZ) - select.PIPE_BUF))
        observe.configure(log_format, stream=stream)
        observe.get_logger(tenant="alpha").info("worker.exited", message="\u00e4\n" * 10_000, cause="c" * 10_000)
        observe.configure()
        stream.close()
        line = reader.read().lstrip(b"x").decode()
    assert len(line.encode()) <= select.PIPE_BUF
    assert line.endswith("\n")
    assert "worker.exited" in line
    if log_format == "json":
        assert json.loads(line)["tenant"] == "alpha"


def test_a_cut_traceback_keeps_its_end(lines):
    """What happened stands at the end of a traceback, so that is what a line keeps of it."""
    try:
        raise ValueError("z" * 5000 + " the end")
    except ValueError:
        observe.get_logger().error("a.b", exc_info=True)
    (line,) = lines()
    assert line["exception"].startswith("...")
    assert line["exception"].endswith("the end")


def test_auto_is_json_where_there_is_no_terminal():
    """`auto` means JSON on a stream that is no terminal."""
    stream = io.StringIO()
    observe.configure("auto", stream=stream)
    observe.get_logger().info("a.b")
    observe.configure()
    assert json.loads(stream.getvalue())["event"] == "a.b"


@pytest.mark.parametrize(("log_format", "level"), [("yaml", "info"), ("json", "loud")])
def test_unknown_choices_are_refused(log_format, level):
    """A format or level that does not exist is an error that names it."""
    with pytest.raises(ValueError, match="not"):
        observe.configure(log_format, level)


def test_a_reader_that_stands_still_blocks_nobody():
    """With a full pipe for stderr lines are dropped and counted, and the count is told when there is room again."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    with os.fdopen(write_fd, "w", encoding="utf-8") as stream:
        observe.configure("json", stream=stream)
        log = observe.get_logger()
        for number in range(2000):
            log.info("line.written", number=number, filler="x" * 200)
        written = os.read(read_fd, 1 << 20).count(b"\n")
        log.info("reader.returned")
        rest = [json.loads(line) for line in os.read(read_fd, 1 << 20).decode().splitlines()]
    observe.configure()
    os.close(read_fd)
    assert [line["event"] for line in rest] == ["log.lines_dropped", "reader.returned"]
    assert rest[0]["count"] == 2000 - written
    assert rest[0]["count"] > 1000


def test_a_disk_that_is_full_joins_no_lines(tmp_path):
    """What is left of a line that a full disk cut stands alone, and the lines after it are whole and counted."""
    program = (
        "import resource, sys; from trtd import observe; limit = resource.RLIMIT_FSIZE;"
        "resource.setrlimit(limit, (300, -1)); observe.configure('json'); log = observe.get_logger();"
        "[log.info('line.written', number=number, filler='x' * 100) for number in range(3)];"
        "resource.setrlimit(limit, (-1, -1)); log.info('disk.has_room')"
    )
    path = tmp_path / "log"
    with path.open("wb") as log:
        outcome = subprocess.run([sys.executable, "-c", program], stderr=log, timeout=60, check=False)
    assert outcome.returncode == 0
    first, torn, *rest = path.read_text("utf-8").splitlines()
    assert json.loads(first)["number"] == 0
    assert torn.startswith('{"at"')
    assert not torn.endswith("}")
    told = [json.loads(line) for line in rest]
    assert [line["event"] for line in told] == ["log.lines_dropped", "disk.has_room"]
    assert told[0]["count"] == 2


def test_a_reader_that_is_gone_ends_nobody():
    """Writing to a pipe without a reader raises nothing."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    stream = os.fdopen(write_fd, "w", encoding="utf-8")
    output = observe.configure("json", stream=stream).output
    observe.get_logger().info("line.written")
    observe.configure()
    assert output.dropped == 1
    stream.close()


def test_structlog_waits_for_the_first_line():
    """Importing and configuring costs no import of structlog, so that children start fast."""
    program = (
        "import sys; from trtd import observe; observe.configure('json'); log = observe.get_logger(a=1);"
        "assert 'structlog' not in sys.modules; log.info('a.b'); assert 'structlog' in sys.modules"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert outcome.returncode == 0, outcome.stderr


def test_repeated_events_are_counted_instead_of_written():
    """In an interval one event per key passes, and the next one that passes knows how many did not."""
    limit = observe.RateLimit(10.0)
    assert [limit.take("a", now) for now in (0.0, 1.0, 9.9, 10.0, 11.0)] == [0, None, None, 2, None]
    assert limit.take("b", 11.0) == 0


def test_keys_of_a_rate_limit_are_bounded():
    """The key that passed longest ago is forgotten when there are too many."""
    limit = observe.RateLimit(10.0, max_keys=2)
    for key in ("a", "b", "c"):
        limit.take(key, 0.0)
    assert limit.take("a", 1.0) == 0
    assert limit.take("c", 1.0) is None


@pytest.mark.parametrize("is_named", [True, False])
def test_the_journal_gets_a_priority_before_each_line(tmp_path, monkeypatch, is_named):
    """Where stderr is the stream that JOURNAL_STREAM names, lines begin with their syslog level, and only there."""
    with (tmp_path / "journal").open("w+", encoding="utf-8") as stream:
        status = os.fstat(stream.fileno())
        inode = status.st_ino if is_named else status.st_ino + 1
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{inode}")
        observe.configure("json", "debug", stream=stream)
        log = observe.get_logger()
        for level in observe.LEVELS:
            getattr(log, level)("a.b", text="x" * 5000)
        observe.configure()
        stream.seek(0)
        lines = stream.read().splitlines()
    assert [line[:3] for line in lines] == (["<7>", "<6>", "<4>", "<3>"] if is_named else ['{"a'] * 4)
    assert all(len(line) <= observe.MAX_LINE_BYTES for line in lines)
    assert all(json.loads(line[line.index("{") :])["event"] == "a.b" for line in lines)
