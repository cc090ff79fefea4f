"""The HTTP responder for Prometheus and probes, at a real daemon."""

from __future__ import annotations

import http.client
import socket
import urllib.error
import urllib.request

import pytest

from tests.support.daemon import Daemon, tenant


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def daemon():
    with Daemon({"a": tenant()}, health={"listen": f"127.0.0.1:{free_port()}"}) as daemon:
        daemon.start()
        daemon.wait_ready()
        yield daemon


def address_of(daemon):
    return daemon.wait_event("metrics.listening")["address"]


def get(daemon, path):
    with urllib.request.urlopen(f"http://{address_of(daemon)}{path}", timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_a_scrape_gives_metrics(daemon):
    """GET /metrics gives Prometheus' text format, with the tenant's worker ready."""
    kind, text = get(daemon, "/metrics")
    assert kind.startswith("text/plain; version=0.0.4")
    assert 'trtd_worker_ready{replica="0",tenant="a"} 1.0' in text


def test_probes_tell_life_and_readiness(daemon):
    """/live and /ready answer 200 for a daemon that serves; /ready answers 503 with names while a tenant is drained."""
    assert get(daemon, "/live")[1] == "live\n"
    assert get(daemon, "/ready?verbose=1")[1] == "ready\n"
    daemon.call("drain", tenant="a")
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(daemon, "/ready")
    assert refused.value.code == 503
    assert refused.value.read() == b"not ready: a\n"
    daemon.call("resume", tenant="a")
    daemon.wait_ready()


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/metrics", 405), ("GET", "/other", 404)])
def test_other_requests_are_refused(daemon, method, path, status):
    """Methods and paths that do not exist get their HTTP status."""
    connection = http.client.HTTPConnection(address_of(daemon), timeout=10)
    connection.request(method, path)
    assert connection.getresponse().status == status
    connection.close()


def test_silent_and_endless_requests_hold_nobody_up(daemon):
    """Connections that send nothing, or a head without end, do not keep the next scrape waiting."""
    host, _, port = address_of(daemon).rpartition(":")
    socks = [socket.create_connection((host, int(port)), timeout=10) for _ in range(4)]
    socks[0].sendall(b"GET /" + b"x" * 20_000)
    assert get(daemon, "/live")[1] == "live\n"
    for sock in socks:
        sock.close()
