"""Drain, resume, restart, reload, status and the end of the daemon, as operators give and see them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading

import jsonschema
import numpy as np
import pytest

from tests.support.daemon import OperatorError, script, tenant, wait_until
from tests.support.schema import status_schema


def row(value: float = 1.0) -> np.ndarray:
    return np.full((1, 4), value, np.float32)


def test_drain_returns_when_the_last_answer_is_out(make_daemon):
    """A drain refuses new requests, waits for accepted ones, and then no worker is left; resume brings all back."""
    daemon = make_daemon({"a": tenant(script("sleep", seconds=0.3))}).start()
    daemon.wait_ready()
    with daemon.client() as client:
        handles = [client.submit("echo", {"x": row()}) for _ in range(3)]
        wait_until(lambda: daemon.worker("a")["in_flight"], "a running batch")
        assert daemon.call("drain", tenant="a") == {"tenants": {"a": "drained"}}
        assert [handle.result(0.5)["x"][0, 0] for handle in handles] == [1.0] * 3
        a = daemon.tenant("a")
        assert (a["phase"], a["gate"], a["workers"][0]["state"], a["workers"][0]["pid"]) == (
            "drained", "closed", "stopped", None,
        )  # fmt: skip
        with pytest.raises(Exception, match="draining"):
            client.infer("echo", {"x": row()}, timeout=5)
        daemon.call("resume", tenant="a")
        daemon.wait_ready()
        client.infer("echo", {"x": row()}, timeout=10)


def test_a_drain_whose_time_is_up_names_what_is_left(make_daemon):
    """The error has the ids of the unfinished requests, the tenant stays draining, and the drain ends later."""
    daemon = make_daemon({"a": tenant(script("sleep", seconds=2.0), health={"progress_s": 20})}).start()
    daemon.wait_ready()
    with daemon.client() as client:
        handle = client.submit("echo", {"x": row()})
        wait_until(lambda: daemon.worker("a")["in_flight"], "a running batch")
        with pytest.raises(OperatorError) as failed:
            daemon.call("drain", all=True, timeout_s=0.2)
        assert failed.value.code == "deadline_exceeded"
        assert failed.value.details["unfinished"] == {"a": {"request_ids": [handle.id.hex()], "total": 1}}
        assert daemon.tenant("a")["phase"] == "draining"
        handle.result(10)
    daemon.wait_status(lambda status: status["tenants"][0]["phase"] == "drained", "the end of the drain")


def test_restart_returns_when_the_new_generation_is_ready(make_daemon):
    """All workers of the tenant are replaced while requests go on, and none of them fails."""
    daemon = make_daemon({"a": tenant(replicas=2), "b": tenant()}).start()
    before = daemon.wait_ready()["tenants"]
    done = threading.Event()
    answers = []

    def ask() -> None:
        with daemon.client() as client:
            while not done.is_set():
                answers.append(client.infer("echo", {"x": row()}, timeout=20))

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        daemon.call("restart", tenant="a")
    finally:
        done.set()
        asker.join()
    after = daemon.status()["tenants"]
    assert [worker["state"] for worker in after[0]["workers"]] == ["ready", "ready"]
    for old, new in zip(before[0]["workers"], after[0]["workers"], strict=True):
        assert new["generation"] > old["generation"]
    assert after[1]["workers"][0]["pid"] == before[1]["workers"][0]["pid"]
    assert answers


def test_reload_applies_the_difference_only(make_daemon):
    """A tenant is added, one removed, one changed; the worker of the one that stays the same keeps its process."""
    daemon = make_daemon({"same": tenant(), "gone": tenant(), "more": tenant()}).start()
    before = {entry["name"]: entry["workers"][0]["pid"] for entry in daemon.wait_ready()["tenants"]}
    daemon.configure({"same": tenant(), "more": tenant(replicas=2), "new": tenant()})
    assert daemon.call("reload") == {
        "added": ["new"], "removed": ["gone"], "changed": ["more"], "needs_restart": [],
    }  # fmt: skip
    status = daemon.wait_status(
        lambda status: (
            [entry["name"] for entry in status["tenants"]] == ["more", "new", "same"] and status["health"] == "ready"
        ),
        "the new configuration",
    )
    after = {entry["name"]: [worker["pid"] for worker in entry["workers"]] for entry in status["tenants"]}
    assert after["same"] == [before["same"]]
    assert after["more"][0] == before["more"]
    assert len(after["more"]) == 2
    with daemon.client("new") as client:
        client.infer("echo", {"x": row()}, timeout=10)


def test_a_bad_configuration_changes_nothing(daemon):
    """On SIGHUP and on `reload` an invalid file is told in one line, and everything goes on as before."""
    pid = daemon.worker("a")["pid"]
    daemon.config_file.write_text(
        daemon.config_file.read_text(encoding="utf-8").replace('"runtime" =', '"runtimes" ='), encoding="utf-8"
    )
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_event("config.reload_failed")
    with pytest.raises(OperatorError, match=r"invalid_config: .*runtimes"):
        daemon.call("reload")
    assert daemon.worker("a")["pid"] == pid


def test_a_configuration_without_tenants_is_refused(daemon):
    """A file that is empty, perhaps because it is just being written, takes no tenant away."""
    pid = daemon.worker("a")["pid"]
    daemon.config_file.write_text("", encoding="utf-8")
    with pytest.raises(OperatorError, match="no tenant is configured"):
        daemon.call("reload")
    assert daemon.worker("a")["pid"] == pid


def test_a_burst_of_sighups_ends_with_the_last_configuration(daemon):
    """However many signals come while a reload is under way, what was written before the last one is in force."""
    before = daemon.worker("a")["pid"]
    for number in range(40):
        daemon.configure({"a": tenant(), f"b{number}": tenant()})
        daemon.send_signal(signal.SIGHUP)
    daemon.wait_status(
        lambda status: [entry["name"] for entry in status["tenants"]] == ["a", "b39"], "the last configuration", 90.0
    )
    assert daemon.worker("a")["pid"] == before
    assert not daemon.events("loop.task_failed")


def test_sighup_reloads(daemon):
    """SIGHUP applies a new configuration."""
    daemon.configure({"a": tenant(), "b": tenant()})
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_event("config.reloaded", added=["b"])
    daemon.wait_ready()


def test_sigterm_drains_everything_and_exits_0(make_daemon):
    """Accepted requests are answered before the daemon ends, in peace, with exit code 0 and nobody left."""
    daemon = make_daemon({"a": tenant(script("sleep", seconds=0.3))}).start()
    daemon.wait_ready()
    with daemon.client() as client:
        handle = client.submit("echo", {"x": row()})
        wait_until(lambda: daemon.worker("a")["in_flight"], "a running batch")
        assert daemon.stop() == 0
        np.testing.assert_array_equal(handle.result(1)["x"], row())
    daemon.expect_no_children()


def test_sigterm_cuts_what_does_not_end(make_daemon):
    """When the drain takes too long, what is left gets a typed error, and the exit code says that something was cut."""
    daemon = make_daemon(
        {"a": tenant(script("sleep", seconds=60), health={"progress_s": 100, "stop_s": 0.5})},
        daemon={"drain_timeout_s": 0.5},
    ).start()
    daemon.wait_ready()
    with daemon.client() as client:
        handle = client.submit("echo", {"x": row()}, timeout=100)
        wait_until(lambda: daemon.worker("a")["in_flight"], "a running batch")
        assert daemon.stop() == 75
        assert handle.exception(2).code in {"unavailable", "draining", "worker_lost"}
    daemon.wait_event("daemon.drain_cut", tenant="a", unfinished=1, request_ids=[handle.id.hex()])


def test_a_second_signal_forces_the_end(make_daemon):
    """The first signal drains, the second one ends everything at once with exit code 75."""
    daemon = make_daemon({"a": tenant(script("sleep", seconds=60), health={"progress_s": 100})}).start()
    daemon.wait_ready()
    with daemon.client() as client:
        client.submit("echo", {"x": row()}, timeout=100)
        wait_until(lambda: daemon.worker("a")["in_flight"], "a running batch")
        daemon.send_signal(signal.SIGTERM)
        daemon.wait_event("daemon.stop_begun")
        assert daemon.process.poll() is None
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(10) == 75
    daemon.expect_no_children()


def test_one_daemon_for_a_runtime_directory(daemon):
    """A second daemon says in one line who is there already, ends with code 69, and harms nothing."""
    first = daemon.process
    lines_before = daemon.log_file.read_text(encoding="utf-8").splitlines()
    daemon.start()
    assert daemon.wait(20) == 69
    said = [line for line in daemon.log_file.read_text(encoding="utf-8").splitlines() if line not in lines_before]
    assert f"pid {first.pid}" in "".join(said)
    assert "Traceback" not in "".join(said)
    daemon.process = first
    assert daemon.status()["health"] == "ready"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"nonsense\n", "malformed"),
        (b"[1, 2]\n", "malformed"),
        (b'{"v": 2, "command": "status"}\n', "unsupported_version"),
        (b'{"v": 1, "command": "destroy"}\n', "usage"),
        (b'{"v": 1, "command": "drain", "args": {}}\n', "usage"),
        (b'{"v": 1, "command": "drain", "args": {"tenant": "nobody"}}\n', "usage"),
        (b'{"v": 1, "command": "restart", "args": {"tenant": 3}}\n', "usage"),
        (b"[" * 100_000 + b"\n", "malformed"),
    ],
)
def test_nonsense_gets_a_typed_error(daemon_of_module, line, code):
    """Whatever an operator's line contains, the answer is one typed error of one line."""
    (answer,) = daemon_of_module.ask(line)
    assert answer["error"]["code"] == code
    assert "\n" not in answer["error"]["message"]


def test_silent_and_greedy_operators_hold_nobody_up(daemon_of_module):
    """Connections that say nothing, half a line, or far too much do not keep another operator waiting."""
    socks = [daemon_of_module.operator() for _ in range(8)]
    socks[0].sendall(b'{"v": 1,')
    with contextlib.suppress(OSError):
        socks[1].sendall(b"x" * (3 << 20))
    assert daemon_of_module.call("status", patience_s=5)["v"] == 1
    for sock in socks:
        sock.close()


def test_a_fault_of_a_device_needs_one(make_daemon):
    """A tenant whose runtime has no device is told so, rather than that a fault was made."""
    daemon = make_daemon({"a": tenant(debug={"allow_faults": True})}).start()
    daemon.wait_ready()
    with pytest.raises(OperatorError, match="usage: tenant a runs on scripted, which has no device to make 'trap' on"):
        daemon.call("fault", tenant="a", fault="trap")
    assert not daemon.events("fault.injected")


def test_status_tells_what_is(daemon_of_module):
    """The record has version, daemon, router and each tenant with its workers, and stays small."""
    status = daemon_of_module.status()
    assert status["daemon"]["pid"] == daemon_of_module.pid
    assert status["router"]["state"] == "ready"
    (a,) = status["tenants"]
    assert a["address"] == daemon_of_module.address()
    assert a["isolation"] == "process"
    assert a["models"][0]["name"] == "echo"
    assert a["runtime"].startswith("scripted")
    (worker,) = a["workers"]
    wait_until(lambda: daemon_of_module.worker("a")["rss_bytes"] > 0, "the first beat")
    assert worker["memory_enforcement"] == "none"
    jsonschema.validate(daemon_of_module.status(), status_schema())
    assert len(json.dumps(status)) < 10_000


@pytest.fixture(scope="module")
def daemon_of_module():
    from tests.support.daemon import Daemon

    with Daemon() as daemon:
        daemon.start()
        daemon.wait_ready()
        yield daemon


def test_blocked_signals_of_the_parent_do_not_make_the_daemon_deaf(make_daemon):
    """A daemon that was started with SIGTERM and SIGCHLD blocked notices deaths, and ends on SIGTERM."""
    block = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals());"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    daemon = make_daemon({"a": tenant()}).start(prefix=(sys.executable, "-c", block))
    daemon.wait_ready()
    generation = daemon.worker("a")["generation"]
    os.kill(daemon.worker("a")["pid"], signal.SIGKILL)
    wait_until(lambda: daemon.worker("a")["generation"] > generation, "the successor")
    assert daemon.stop() == 0
