"""The client of the operators' socket, and the commands that use it, against a socket whose lines the test writes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.stand_in_daemon import StandInDaemon
from tests.support.status import make_child, make_status, make_tenant
from trtd.cli import operator
from trtd.cli.main import main
from trtd.errors import DeadlineExceeded, ErrorCode, Malformed, TrtdError, Unreachable
from trtd.wire import addresses

WAIT_S = 10.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[StandInDaemon]:
    daemon = StandInDaemon(tmp_path)
    yield daemon
    daemon.close()


@pytest.fixture
def trtd(tmp_path: Path) -> Callable[..., int]:
    return lambda *argv: main([*argv, "--runtime-dir", str(tmp_path)])


def test_a_command_and_its_answer(daemon, tmp_path):
    """The command goes out with the arguments that were given, progress is handed on, the last line is the answer."""
    daemon.lines = [{"progress": {"queued": 3}}, {"progress": {"queued": 0}}, {"ok": {"tenants": {"a": "drained"}}}]
    seen: list[Any] = []
    answer = operator.call(str(tmp_path), "drain", {"tenant": "a", "all": None}, on_progress=seen.append)
    assert answer == {"tenants": {"a": "drained"}}
    assert seen == [{"queued": 3}, {"queued": 0}]
    assert daemon.asked == [{"v": 1, "command": "drain", "args": {"tenant": "a"}}]


def test_a_typed_error_with_details(daemon, tmp_path):
    """An error line becomes the typed error, with what the daemon told beside it."""
    daemon.lines = [{"error": {"code": "usage", "message": "no", "retry_after_s": 1.5, "details": {"a": 1}}}]
    with pytest.raises(operator.CommandFailed) as caught:
        operator.call(str(tmp_path), "drain", {})
    assert (caught.value.cause.code, caught.value.cause.retry_after_s) == (ErrorCode.USAGE, 1.5)
    assert caught.value.details == {"a": 1}


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([], Unreachable),
        ([{"progress": {}}], Unreachable),
        ([b"rubbish\n"], Malformed),
        ([b"[1]\n"], Malformed),
        ([b'{"ok": 1}\n'], Malformed),
    ],
)
def test_answers_that_are_none(daemon, tmp_path, lines, error):
    """A daemon that goes away or speaks rubbish gives one typed error."""
    daemon.lines = lines
    with pytest.raises(error):
        operator.call(str(tmp_path), "status", {})


def test_no_daemon(tmp_path):
    """Without a socket, and with one that nobody listens on, the daemon is unreachable and the path is named."""
    with pytest.raises(Unreachable, match="there is no such socket"):
        operator.call(str(tmp_path), "status", {})
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(addresses.operator_path(str(tmp_path)))
    listener.close()
    with pytest.raises(Unreachable, match="nobody listens"):
        operator.call(str(tmp_path), "status", {})
    with pytest.raises(TrtdError, match="cannot be connected"):
        operator.call(str(tmp_path / ("x" * 200)), "status", {})


def test_a_silent_daemon(tmp_path, monkeypatch):
    """A daemon that takes the command and says nothing is given up."""
    monkeypatch.setattr(operator, "ANSWER_TIMEOUT_S", 0.05)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(addresses.operator_path(str(tmp_path)))
    listener.listen()
    with listener, pytest.raises(DeadlineExceeded, match=r"said nothing for 0\.05 s"):
        operator.call(str(tmp_path), "status", {})


def test_status_exit_codes(daemon, trtd, capsys):
    """`trtd status` ends with 0 when all is ready and 1 when it is degraded, of one tenant when that is asked for."""
    degraded = make_status(make_tenant("a"), make_tenant("b", health="waiting"))
    for record, argv, code in [
        (make_status(make_tenant("a")), ["status"], 0),
        (degraded, ["status"], 1),
        (make_status(make_tenant("a"), health="degraded"), ["status", "a"], 0),
    ]:
        daemon.lines = [{"ok": record}]
        assert trtd(*argv) == code
    assert "waiting" in capsys.readouterr().out
    daemon.lines = [{"ok": degraded}]
    assert trtd("status", "--json") == 1
    assert json.loads(capsys.readouterr().out) == degraded


def test_status_of_no_daemon(trtd, daemon, capsys, tmp_path):
    """`trtd status` ends with 3 when no daemon runs and with 4 when its state cannot be told, with one line each."""
    daemon.lines = [{"error": {"code": "not_allowed", "message": "uid 5 may not status"}}]
    assert trtd("status") == 4
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        "trtd: not_allowed: uid 5 may not status. "
        "Ask for a place among operators or viewers in [operators] of the configuration.\n"
    )
    assert main(["status", "--runtime-dir", str(tmp_path / "other")]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_drain_that_times_out(daemon, trtd, capsys):
    """A drain whose time is up ends with 75 and lists the requests that have no answer."""
    unfinished = {"a": {"request_ids": ["00ff", "01ff"], "total": 5}}
    error = {"code": "deadline_exceeded", "message": "a not drained within 1 s", "details": {"unfinished": unfinished}}
    daemon.lines = [{"progress": {"queued": 1}}, {"error": error}]
    assert trtd("drain", "a", "--timeout", "1") == 75
    told = capsys.readouterr()
    assert told.out == "a 00ff\na 01ff\na and 3 more\n"
    assert told.err.startswith("trtd: deadline_exceeded: a not drained within 1 s.")
    assert daemon.asked == [{"v": 1, "command": "drain", "args": {"tenant": "a", "timeout_s": 1.0}}]
    assert trtd("drain", "a", "--json") == 75
    assert json.loads(capsys.readouterr().out)["error"]["details"] == {"unfinished": unfinished}


def test_commands_that_succeed(daemon, trtd, capsys):
    """Each command says in one line what was done."""
    for argv, answer, text in [
        (["drain", "--all"], {"tenants": {"a": "drained", "b": "drained"}}, "a drained\nb drained\n"),
        (["resume", "a"], {"tenants": {"a": "serving"}}, "a resumed\n"),
        (["restart", "a"], {"tenants": {"a": "restarted"}}, "a restarted\n"),
        (["reload"], {"added": ["c"], "removed": [], "changed": ["a", "b"]}, "reloaded; added: c; changed: a, b\n"),
        (["reload"], {"added": [], "removed": []}, "reloaded; nothing changed\n"),
    ]:
        daemon.lines = [{"ok": answer}]
        assert trtd(*argv) == 0
        assert capsys.readouterr().out == text
    assert [each["args"] for each in daemon.asked[:3]] == [{"all": True}, {"tenant": "a"}, {"tenant": "a"}]


def test_a_target_is_one_tenant_or_all(trtd, capsys):
    """`trtd drain` without a tenant, or with one and --all, is a mistake in its use."""
    assert trtd("drain") == 64
    assert trtd("drain", "a", "--all") == 64
    assert capsys.readouterr().err.startswith("trtd: usage: trtd drain: name a tenant, or give --all.")


def test_status_loads_nothing_heavy():
    """`trtd status` answers without importing numpy, zmq, pydantic, msgpack or asyncio."""
    code = (
        "import sys; from trtd.cli.main import main; assert main(['status', '--runtime-dir', '/nonexistent']) == 3; "
        "heavy = {'numpy', 'zmq', 'pydantic', 'msgpack', 'asyncio', 'onnxruntime'} & set(sys.modules); "
        "sys.exit(f'{heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_has_seen_enough(daemon, tmp_path):
    """When the reader of the output goes away the command ends silently."""
    daemon.lines = [{"ok": make_status(*(make_tenant(f"t{number}") for number in range(2000)))}]
    process = subprocess.Popen(
        [sys.executable, "-m", "trtd.cli.main", "status", "--runtime-dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_watch_ends_with_ctrl_c(daemon, tmp_path):
    """`trtd status --watch` prints again and again until Ctrl-C, which ends it with 130 and no traceback."""
    daemon.lines = [{"ok": make_status(make_tenant("a", workers=[make_child("a/0")]))}]
    process = subprocess.Popen(
        [sys.executable, "-m", "trtd.cli.main", "status", "--watch", "--json", "--runtime-dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        assert process.stdout is not None
        for _ in range(2):
            assert json.loads(process.stdout.readline())["v"] == 1
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, errors) == (130, b"")
