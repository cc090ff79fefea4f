"""`trtd health` against a daemon whose answers the test writes: one line, and an exit code for probes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.stand_in_daemon import StandInDaemon
from tests.support.status import make_status, make_tenant
from trtd.cli.main import main

WAITING = make_tenant("b", health="waiting", is_ready=False)
OPTIONAL = make_tenant("b", health="waiting", is_ready=False, is_required=False)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[StandInDaemon]:
    daemon = StandInDaemon(tmp_path)
    yield daemon
    daemon.close()


@pytest.fixture
def trtd(tmp_path: Path) -> Callable[..., int]:
    return lambda *argv: main([*argv, "--runtime-dir", str(tmp_path)])


@pytest.mark.parametrize(
    ("record", "argv", "code", "line"),
    [
        (make_status(make_tenant("a")), [], 0, "ready"),
        (make_status(make_tenant("a"), WAITING), [], 1, "not ready: 1 of 2 tenants ready, 2469 requests/s; b waiting"),
        (make_status(make_tenant("a"), OPTIONAL) | {"is_ready": True}, [], 0, "ready"),
        (
            make_status(OPTIONAL) | {"is_ready": True}, ["--tenant", "b"], 1,
            "not ready: 0 of 1 tenants ready, 1234 requests/s; b waiting",
        ),
        (make_status(WAITING), ["--live"], 0, "live"),
    ],
)  # fmt: skip
def test_the_code_says_it(daemon, trtd, capsys, record, argv, code, line):
    """0 where what was asked for is so, 1 where it is not, and a line that says why."""
    daemon.lines = [{"ok": record}]
    assert trtd("health", *argv) == code
    assert capsys.readouterr().out == f"{line}\n"


def test_for_programs(daemon, trtd, capsys):
    """--json gives a versioned object with the same exit code."""
    daemon.lines = [{"ok": make_status(WAITING)}]
    assert trtd("health", "--json") == 1
    assert json.loads(capsys.readouterr().out) == {"v": 1, "is_live": True, "is_ready": False}


def test_without_a_daemon(daemon, trtd, tmp_path, capsys):
    """3 where no daemon runs, 4 where its state cannot be told, such as that of a tenant that does not exist."""
    assert main(["health", "--runtime-dir", str(tmp_path / "other")]) == 3
    daemon.lines = [{"error": {"code": "usage", "message": "there is no tenant 'x'"}}]
    assert trtd("health", "--tenant", "x") == 4
    assert capsys.readouterr().err.count("\n") == 2
