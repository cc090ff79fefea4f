"""A file that nobody answers for keeps the daemon neither from serving, nor from refusing, nor from ending."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest

from tests.support.daemon import OperatorError, script, tenant
from tests.support.hanging import MARK, PREFIX
from trtd.errors import ExitCode

X = {"x": np.ones((1, 4), np.float32)}


def pid_of(status, name):
    """Of the worker of a tenant."""
    return next(one for one in status["tenants"] if one["name"] == name)["workers"][0]["pid"]


def asks(daemon) -> None:
    """One request is answered."""
    with daemon.client() as client:
        client.infer("echo", X, timeout=20)


@pytest.mark.parametrize("place", ["conf.d", "tenants.d"])
def test_a_named_pipe_beside_the_configuration_is_refused(daemon, place):
    """A reload says at once what the file is; the daemon serves on, and ends when it is told to."""
    directory = daemon.directory / place
    directory.mkdir()
    os.mkfifo(directory / "pipe.toml")
    for _ in range(2):
        with pytest.raises(OperatorError, match=r"pipe\.toml: cannot be read: is a named pipe") as refused:
            daemon.call("reload")
        assert refused.value.code == "invalid_config"
    asks(daemon)
    assert daemon.stop() == ExitCode.OK


def test_a_configuration_on_a_disk_that_is_away(make_daemon):
    """A reload that hangs holds up nothing else: the daemon serves, tells whoever waits, and SIGTERM ends it."""
    daemon = make_daemon().start(prefix=PREFIX)
    daemon.wait_ready()
    (daemon.directory / "conf.d").mkdir()
    (daemon.directory / "conf.d" / "x.toml").touch()
    (daemon.directory / "conf.d" / MARK).touch()
    with daemon.operator() as sock:
        sock.sendall(b'{"v": 1, "command": "reload", "args": {}}\n')
        with sock.makefile("rb") as lines:
            assert b"the files of the configuration" in lines.readline()
            asks(daemon)
            assert daemon.stop() == ExitCode.OK


def test_a_model_on_a_disk_that_is_away(make_daemon):
    """The tenant whose file does not come keeps its worker; what is new of others is applied; SIGTERM ends all."""
    tables = {"a": tenant(), "b": tenant()}
    daemon = make_daemon()
    disk = daemon.directory / "disk"
    disk.mkdir()
    model = disk / "echo.json"
    model.write_text(json.dumps(script()), encoding="utf-8")
    tables["a"]["models"]["echo"] = {"path": str(model)}
    daemon.configure(tables)
    before = daemon.start(prefix=PREFIX).wait_ready()
    (disk / MARK).touch()
    tables["b"]["weight"] = 7
    tables["c"] = tenant()
    daemon.configure(tables)
    answer = daemon.call("reload", patience_s=60)
    assert (answer["added"], answer["changed"]) == (["c"], ["b"])
    daemon.wait_event("model.files_hang", tenant="a", path=str(model))
    after = daemon.wait_status(lambda status: status["tenants"][2]["health"] == "ready", "the new tenant")
    assert [pid_of(after, name) for name in "ab"] == [pid_of(before, name) for name in "ab"]
    asks(daemon)
    assert daemon.stop() == ExitCode.OK


def test_sigterm_ends_a_daemon_that_hangs_at_its_start(make_daemon):
    """Before it serves anything, there is nothing to drain."""
    daemon = make_daemon()
    (daemon.directory / MARK).touch()
    daemon.start(prefix=PREFIX)
    daemon.wait_event("disk.away", path=str(daemon.config_file))
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait() == -signal.SIGTERM
