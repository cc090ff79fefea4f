"""A daemon whose tenants' sockets are opened by the service manager: nobody who connects is turned away."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.activation import listening_socket
from tests.support.daemon import tenant, wait_until

X = {"x": np.ones((1, 4), np.float32)}


@pytest.fixture
def daemon(make_daemon):
    daemon = make_daemon({"a": tenant(), "own": tenant()})
    daemon.runtime_dir.mkdir(mode=0o755)
    return daemon


@pytest.fixture
def listener(daemon):
    with listening_socket(daemon.runtime_dir / "a.sock") as sock:
        yield sock


def test_who_asks_before_the_daemon_runs_is_answered(daemon, listener):
    """A request that was sent to the socket beforehand is answered once the daemon serves; other tenants are too."""
    with daemon.client() as client:
        handle = client.submit("echo", X, timeout=30)
        daemon.start(listener)
        assert handle.result(30)["x"][0, 0] == 1.0
    with daemon.client("own") as client:
        client.infer("echo", X, timeout=10)


def test_the_socket_outlives_the_router_and_the_daemon(daemon, listener):
    """The same socket file serves after the router was killed and after the daemon was started anew."""
    inode = (daemon.runtime_dir / "a.sock").stat().st_ino
    daemon.start(listener)
    daemon.wait_ready()
    generation = daemon.kill_router()
    with daemon.client() as client:
        client.infer("echo", X, timeout=30)
    assert daemon.status()["router"]["generation"] > generation
    assert daemon.stop() == 0
    assert not (daemon.runtime_dir / "own.sock").exists()
    daemon.start(listener)
    with daemon.client() as client:
        client.infer("echo", X, timeout=30)
    assert (daemon.runtime_dir / "a.sock").stat().st_ino == inode


def test_a_tenant_can_go_and_come_back(daemon, listener):
    """A tenant that a reload removes and another one brings back finds its socket again."""
    daemon.start(listener)
    daemon.wait_ready()
    daemon.configure({"own": tenant()})
    daemon.call("reload")
    daemon.wait_status(lambda status: len(status["tenants"]) == 1, "the end of the tenant")
    daemon.configure({"a": tenant(), "own": tenant()})
    daemon.call("reload")
    with daemon.client() as client:
        client.infer("echo", X, timeout=30)


def test_a_socket_that_no_tenant_has_is_named(daemon, listener, tmp_path):
    """The log names a socket that fits no tenant, and the others serve."""
    with listening_socket(tmp_path / "wrong.sock") as wrong:
        daemon.start(wrong, listener)
        line = daemon.wait_event("listener.unused")
        assert line["address"] == f"ipc://{tmp_path}/wrong.sock"
        with daemon.client() as client:
            client.infer("echo", X, timeout=30)
    wait_until(lambda: len(daemon.events("listener.unused")) == 1, "one line")
