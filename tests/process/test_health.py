"""HTTP for probes and Prometheus, at a real daemon: its answers, its expendable process, and hostile peers."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from contextlib import closing

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import Daemon, children_of, is_running, script, tenant, wait_until
from trtd.health.server import MAX_CONNECTIONS

CHILD = "trtd.health.main"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = connect(self._path)


def connect(path: str) -> socket.socket:
    # A connection with a timeout would be refused while the backlog is full; this one waits for its turn.
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.settimeout(20)
    return sock


def get(path: str, address: str, method: str = "GET") -> tuple[int, str]:
    """Status and body."""
    with closing(UnixConnection(path)) as connection:
        connection.request(method, address)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def http_child(daemon: Daemon) -> int | None:
    return next((pid for pid, kind in children_of(daemon.pid).items() if kind == CHILD), None)


def listen(daemon: Daemon) -> str:
    """Where HTTP is to listen, in the daemon's own directory."""
    return str(daemon.directory / "http")


def make(tenants: dict[str, object], **health: object) -> Daemon:
    daemon = Daemon(tenants)
    daemon.configure(tenants, health={"listen": f"unix:{listen(daemon)}", **health})
    daemon.start()
    return daemon


@pytest.fixture(scope="module")
def daemon():
    with make({"a": tenant(), "b": tenant(required=False)}) as daemon:
        daemon.wait_ready()
        yield daemon


def test_a_scrape_gives_metrics(daemon):
    """GET /metrics gives what Prometheus' own parser reads, with the tenant's worker ready."""
    with daemon.client() as client:
        client.infer("echo", {"x": np.ones((1, 4), np.float32)}, timeout=10)

    def answered() -> bool:
        status, text = get(listen(daemon), "/metrics")
        assert status == 200
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert {"tenant": "a", "replica": "0"} in [sample.labels for sample in families["trtd_worker_ready"].samples]
        return any(sample.value == 1 for sample in families["trtd_requests"].samples)

    wait_until(answered, "the request among the metrics")


def test_probes_tell_life_and_readiness(daemon):
    """A drained tenant takes the daemon's readiness with it where it is required, its own in any case, and no life."""
    assert get(listen(daemon), "/live") == (200, "live\n")
    assert get(listen(daemon), "/ready?verbose=1") == (200, "ready\n")
    daemon.call("drain", tenant="b")
    assert get(listen(daemon), "/ready") == (200, "ready\n")
    assert get(listen(daemon), "/ready/b") == (503, "not ready: b drained, tenant b is drained\n")
    daemon.call("drain", tenant="a")
    assert get(listen(daemon), "/ready") == (503, "not ready: a drained\n")
    assert get(listen(daemon), "/live") == (200, "live\n")
    assert get(listen(daemon), "/ready/nobody")[0] == 404
    assert get(listen(daemon), "/ready", "HEAD") == (503, "")
    daemon.call("resume", all=True)
    daemon.wait_ready()


def test_hostile_peers_hold_nobody_up(daemon):
    """With every connection taken by peers that say nothing, and others that say too much, probes are answered."""
    pids = {worker["pid"] for entry in daemon.status()["tenants"] for worker in entry["workers"]}
    silent = [connect(listen(daemon)) for _ in range(2 * MAX_CONNECTIONS)]
    for noise in (b"\r\n\r\n", b"GET /" + b"x" * 20_000, b"\x00" * 20_000, b"POST /live HTTP/1.1\r\n\r\n"):
        silent[0].close()
        sock = silent[0] = connect(listen(daemon))
        try:
            sock.sendall(noise)
            sock.recv(100)
        except OSError:
            continue

    for _ in range(10):
        assert get(listen(daemon), "/live") == (200, "live\n")
    for sock in silent:
        sock.close()
    status = daemon.status()
    assert {worker["pid"] for entry in status["tenants"] for worker in entry["workers"]} == pids


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_child_is_expendable(daemon, number):
    """A child that dies is started again; a probe sent meanwhile waits for it; the daemon's other work goes on."""
    before = http_child(daemon)
    pids = {worker["pid"] for entry in daemon.status()["tenants"] for worker in entry["workers"]}
    os.kill(before, number)
    wait_until(lambda: not is_running(before), "the end of the child")
    assert get(listen(daemon), "/ready") == (200, "ready\n")
    assert http_child(daemon) not in {None, before}
    assert {worker["pid"] for entry in daemon.status()["tenants"] for worker in entry["workers"]} == pids


def test_a_supervisor_that_stands_still_is_not_live():
    """While the supervisor's loop does not turn, /live and /ready answer 503 within seconds."""
    with make({"a": tenant()}) as daemon:
        daemon.wait_ready()
        assert get(listen(daemon), "/live")[0] == 200
        daemon.send_signal(signal.SIGSTOP)
        try:
            assert get(listen(daemon), "/live") == (503, "the supervisor said nothing for 2 s\n")
            assert get(listen(daemon), "/ready")[0] == 503
        finally:
            daemon.send_signal(signal.SIGCONT)
        wait_until(lambda: get(listen(daemon), "/live")[0] == 200, "life again")


def test_readiness_is_gone_when_the_fault_is_known():
    """As soon as the log has a worker's sticky error, the next probe is refused."""
    broken = tenant(script("fault", when=666.0), restart={"budget": 0})
    with make({"a": broken}) as daemon:
        daemon.wait_ready()
        with daemon.client() as client:
            handle = client.submit("echo", {"x": np.full((1, 4), 666.0, np.float32)}, timeout=30)
            daemon.wait_event("worker.exited", tenant="a")
            assert get(listen(daemon), "/ready")[0] == 503
            handle.exception(30)


def test_an_address_that_is_taken_is_told_at_the_start(make_daemon):
    """A daemon whose HTTP address belongs to somebody else ends at once with one line and code 69."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = make_daemon({"a": tenant()}, health={"listen": f"127.0.0.1:{taken.getsockname()[1]}"}).start()
        assert daemon.wait(20) == 69
    assert "Address already in use" in daemon.log_file.read_text(encoding="utf-8")


def test_tcp_on_loopback(make_daemon):
    """A loopback port answers like a unix socket."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    daemon = make_daemon({"a": tenant()}, health={"listen": f"127.0.0.1:{port}"}).start()
    daemon.wait_ready()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", "/ready/a")
        assert connection.getresponse().read() == b"ready\n"
