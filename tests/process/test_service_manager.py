"""The daemon under a service manager: what it says at its start, at reloads, at its end, and when it says nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from tests.support.daemon import script, tenant, wait_until
from tests.support.service_manager import Host


@pytest.fixture
def host(tmp_path):
    with Host(tmp_path / "notify") as host:
        yield host


def test_a_life_is_told(make_daemon, host):
    """READY when the tenants are, RELOADING and READY around a reload, STOPPING, and always one line of status."""
    daemon = make_daemon({"a": tenant(), "b": tenant()}).start(NOTIFY_SOCKET=host.address)
    ready = host.wait("READY", "1")
    assert [entry["is_ready"] for entry in daemon.status()["tenants"]] == [True, True]
    assert "EXTEND_TIMEOUT_USEC" in host.names()
    status = host.wait("STATUS", after=ready)
    assert host.statements[status]["STATUS"].startswith("2 of 2 tenants ready")
    daemon.send_signal(signal.SIGHUP)
    reloading = host.wait("RELOADING", "1", after=ready)
    assert int(host.statements[reloading]["MONOTONIC_USEC"]) > 0
    host.wait("READY", "1", after=reloading)
    daemon.config_file.write_text("version = 9", encoding="utf-8")
    daemon.send_signal(signal.SIGHUP)
    refused = host.wait("RELOADING", "1", after=reloading + 1)
    host.wait("READY", "1", after=refused)
    assert daemon.stop() == 0
    host.wait("STOPPING", "1", after=refused)
    assert "WATCHDOG" not in host.names()


def test_a_tenant_that_cannot_work_holds_up_no_start(make_daemon, host):
    """READY comes once a required tenant has failed, and the status says so; one that still loads is waited for."""
    daemon = make_daemon({"bad": tenant(script("fail_load")), "slow": tenant(script("slow_load", seconds=1.0))}).start(
        NOTIFY_SOCKET=host.address
    )
    ready = host.wait("READY", "1")
    assert daemon.tenant("slow")["is_ready"]
    status = host.wait("STATUS", after=ready)
    assert "1 of 2 tenants ready" in host.statements[status]["STATUS"]
    assert "bad" in host.statements[status]["STATUS"]


def test_a_tenant_that_is_not_required_is_not_waited_for(make_daemon, host):
    """With `required = false` the daemon is ready before the tenant is."""
    daemon = make_daemon(
        {"a": tenant(), "slow": tenant(script("slow_load", seconds=60.0), required=False)}
    ).start(NOTIFY_SOCKET=host.address)  # fmt: skip
    host.wait("READY", "1")
    assert not daemon.tenant("slow")["is_ready"]


def test_more_time_is_asked_for_while_requests_are_finished(make_daemon, host):
    """A drain that takes longer than the host's patience is not cut short by the host."""
    daemon = make_daemon({"a": tenant(script("sleep", seconds=1.0))}).start(NOTIFY_SOCKET=host.address)
    host.wait("READY", "1")
    with daemon.client() as client:
        handle = client.submit("echo", {"x": np.ones((1, 4), np.float32)})
        wait_until(lambda: daemon.worker("a")["in_flight"], "a running batch")
        daemon.send_signal(signal.SIGTERM)
        stopping = host.wait("STOPPING", "1")
        host.wait("EXTEND_TIMEOUT_USEC", after=stopping)
        handle.result(10)
    assert daemon.wait() == 0


def test_the_kernel_takes_a_tenant_before_the_daemon(make_daemon):
    """When the host has no memory left, a worker is worth more to the kernel than the router, and that more than us."""
    daemon = make_daemon().start()
    router = daemon.wait_ready()["router"]
    pids = (daemon.pid, router["pid"], daemon.worker("a")["pid"])
    own, of_router, of_worker = (int(Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii")) for pid in pids)
    assert (of_router, of_worker) == (max(own, 100), max(own, 300))


def test_the_watchdog_is_fed_by_a_loop_that_turns(make_daemon, host):
    """WATCHDOG=1 comes while the supervisor runs, and not while it stands still, though its children live on."""
    daemon = make_daemon().start(NOTIFY_SOCKET=host.address, WATCHDOG_USEC="400000")
    ready = host.wait("READY", "1")
    fed = host.wait("WATCHDOG", "1", after=ready)
    host.wait("WATCHDOG", "1", after=fed + 1)
    daemon.send_signal(signal.SIGSTOP)
    try:
        # What was said before it stood still is read first.
        host.read_until_silent(for_s=2.0)
    finally:
        daemon.send_signal(signal.SIGCONT)
    host.wait("WATCHDOG", "1", after=len(host.statements))
