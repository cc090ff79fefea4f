"""trtd under a real supervisord 4.3, with the configuration that is shipped."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from xmlrpc.client import Fault

import numpy as np
import pytest

from tests.support.daemon import Daemon, script, tenant, wait_until
from tests.support.supervisord import Supervisord, milliseconds

ROW = {"x": np.ones((1, 4), np.float32)}


@pytest.fixture
def make_host(make_daemon: Callable[..., Daemon]) -> Iterator[Callable[..., Supervisord]]:
    with ExitStack() as stack:

        def make(*tenants: Any, **options: bool) -> Supervisord:
            return stack.enter_context(Supervisord(make_daemon(*tenants), **options)).start()

        yield make


def wait_ready(host: Supervisord) -> dict[str, Any]:
    def ready_status() -> Any:
        try:
            status = host.call("trtd.status")
        except Fault:
            return None
        return status if status["health"] == "ready" else None

    return dict(wait_until(ready_status, "all tenants ready"))


def event_lines(host: Supervisord) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.events_log.read_text(encoding="utf-8").splitlines()]


def test_status_drain_and_resume_over_xml_rpc(make_host):
    """A dashboard sees what `trtd status` prints, drains one tenant or all, brings them back, and is told why not."""
    host = make_host({"a": tenant(script("sleep", seconds=0.3)), "b": tenant()})
    status = wait_ready(host)
    assert [entry["name"] for entry in status["tenants"]] == ["a", "b"]
    assert status["daemon"]["pid"] == host.info("trtd")["pid"]
    assert [entry["name"] for entry in host.call("trtd.status", "b")["tenants"]] == ["b"]
    with host.daemon.client("a") as client:
        handle = client.submit("echo", ROW)
        wait_until(lambda: host.daemon.worker("a")["in_flight"], "a running batch")
        assert host.call("trtd.drain", "a") == {"tenants": {"a": "drained"}}
        assert handle.result(0.5)["x"][0, 0] == 1.0
    assert host.call("trtd.resume", "a") == {"tenants": {"a": "serving"}}
    assert host.call("trtd.drain_all", 5.0) == {"tenants": {"a": "drained", "b": "drained"}}
    assert host.call("trtd.resume_all") == {"tenants": {"a": "serving", "b": "serving"}}
    with pytest.raises(Fault, match="FAILED: usage: there is no tenant 'c'"):
        host.call("trtd.drain", "c")
    assert {"trtd.status", "trtd.drain", "trtd.resume"} <= set(host.call("system.listMethods"))
    host.call("supervisor.stopProcess", "trtd")
    with pytest.raises(Fault, match="FAILED: unreachable: no daemon answers at "):
        host.call("trtd.status")


def test_a_long_drain_leaves_supervisord_free(make_host):
    """While one caller waits for a drain, supervisord answers others; a cut drain tells its error."""
    host = make_host({"a": tenant(script("sleep", seconds=2.0))})
    wait_ready(host)
    with host.daemon.client("a") as client:
        handle = client.submit("echo", ROW)
        wait_until(lambda: host.daemon.worker("a")["in_flight"], "a running batch")
        with ThreadPoolExecutor() as pool:
            drain = pool.submit(host.call, "trtd.drain", "a", 1.5)
            wait_until(lambda: host.call("trtd.status")["tenants"][0]["phase"] == "draining", "the drain to begin")
            assert not drain.done()
            with pytest.raises(Fault, match=r"FAILED: deadline_exceeded: a not drained within 1.5 s, 1 requests"):
                drain.result(10)
        handle.result(10)


def test_supervisorctl_restart_drains(make_host):
    """Stopping trtd from supervisord answers what was accepted, and its exit is no failure; starting brings it back."""
    host = make_host({"a": tenant(script("sleep", seconds=0.5))})
    wait_ready(host)
    with host.daemon.client("a") as client:
        handle = client.submit("echo", ROW)
        wait_until(lambda: host.daemon.worker("a")["in_flight"], "a running batch")
        pid = host.info("trtd")["pid"]
        host.call("supervisor.stopProcess", "trtd")
        assert handle.result(0.5)["x"][0, 0] == 1.0
        host.daemon.expect_no_children(pid)
        assert host.daemon.events("daemon.stopped", exit_code=0)
        host.call("supervisor.startProcess", "trtd")
        wait_ready(host)
        client.infer("echo", ROW, timeout=10)


def test_a_killed_daemon_comes_back_and_the_listener_tells(make_host):
    """SIGKILL of trtd: a new one serves, nothing of the old one is left, and each change of state is one JSON line."""
    host = make_host()
    pid = wait_ready(host)["daemon"]["pid"]
    wait_until(lambda: host.info("trtd")["statename"] == "RUNNING", "supervisord to trust it")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: host.info("trtd")["pid"] not in (0, pid), "a new process")
    wait_ready(host)
    host.daemon.expect_no_children(pid)
    wait_until(
        lambda: any((line["was"], line["state"]) == ("exited", "starting") for line in event_lines(host)),
        "the lines of the listener",
    )
    exited = next(line for line in event_lines(host) if line["process"] == "trtd" and line["state"] == "exited")
    assert {
        "event": "supervisord.process_state_changed",
        "level": "warning",
        "group": "trtd",
        "was": "running",
        "pid": pid,
        "is_expected": False,
    }.items() <= exited.items()


def test_sighup_of_supervisord_restarts_all_of_it(make_host):
    """SIGHUP is no reload: trtd is drained and started anew, and the plugin works in supervisord's second life too."""
    host = make_host()
    pid = wait_ready(host)["daemon"]["pid"]
    host.process.send_signal(signal.SIGHUP)
    wait_until(lambda: host.daemon.events("daemon.stopped", exit_code=0), "the end of the first daemon")
    wait_until(host.is_answering, "supervisord's second life")
    assert wait_ready(host)["daemon"]["pid"] != pid
    print(f"respawn after SIGHUP: {milliseconds(host.respawn_s(3))}")


def test_respawn_time_with_and_without_the_plugin(make_host):
    """A child that is killed is started again, with our plugin and without it; the times are printed, not judged."""
    for has_plugin in (True, False):
        host = make_host(has_plugin=has_plugin, has_trtd=False)
        times = host.respawn_s(4)
        print(f"respawn {'with' if has_plugin else 'without'} the plugin: {milliseconds(times)}")
