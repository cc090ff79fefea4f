"""What each address answers to which state of the daemon."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.status import make_child, make_status, make_tenant
from trtd.health.answers import Answer, SupervisorSilent, answer
from trtd.health.requests import Request


def ask(path: str, status: Any = None, *, is_silent: bool = False) -> Answer:
    async def records(word: str) -> Any:
        if is_silent:
            raise SupervisorSilent("the supervisor said nothing for 2 s")
        return {"status": status, "beat": {}, "metrics": {"status": status, "tenants": []}}[word]

    return asyncio.run(answer(Request("GET", path), records))


DOWN = make_tenant("b", health="unavailable", is_ready=False, reason="worker b/0 is quarantined: crashed")


@pytest.mark.parametrize(
    ("path", "status", "code", "body"),
    [
        ("/live", make_status(), "200", "live\n"),
        ("/ready", make_status(make_tenant("a")), "200", "ready\n"),
        ("/ready", make_status(make_tenant("a"), DOWN), "503", "not ready: b unavailable\n"),
        ("/ready/a", make_status(make_tenant("a"), DOWN), "200", "ready\n"),
        (
            "/ready/b", make_status(make_tenant("a"), DOWN), "503",
            "not ready: b unavailable, worker b/0 is quarantined: crashed\n",
        ),
        ("/ready/c", make_status(make_tenant("a")), "404", "there is no such tenant\n"),
        ("/other", make_status(), "404", "there are /live, /ready, /ready/TENANT and /metrics\n"),
    ],
)  # fmt: skip
def test_addresses(path, status, code, body):
    """Each address has its status line and a body that says why."""
    found = ask(path, status)
    assert (found.status[:3], found.body.decode()) == (code, body)


def test_a_tenant_that_is_not_required_takes_nobodys_readiness():
    """The daemon is ready without it, and says so of the tenant itself all the same."""
    optional = {**DOWN, "is_required": False}
    status = make_status(make_tenant("a"), optional) | {"is_ready": True}
    assert ask("/ready", status).status == "200 OK"
    assert ask("/ready/b", status).status.startswith("503")


@pytest.mark.parametrize("path", ["/ready", "/ready/a"])
def test_a_router_that_is_not_there_is_named(path):
    """Without a router nothing is ready, and the body says that it is the router, not the tenant."""
    tenant = make_tenant("a", is_ready=False)
    status = make_status(tenant) | {"is_ready": False, "router": make_child("router", state="backoff")}
    assert ask(path, status).body == b"not ready: router backoff\n"


@pytest.mark.parametrize("path", ["/live", "/ready", "/ready/a", "/metrics"])
def test_a_silent_supervisor_is_neither_live_nor_ready(path):
    """Every address that depends on the supervisor answers 503 while that says nothing."""
    found = ask(path, is_silent=True)
    assert found.status.startswith("503")
    assert b"supervisor said nothing" in found.body


def test_metrics_are_in_prometheus_format():
    """The address for Prometheus gives its content type and the daemon's numbers."""
    found = ask("/metrics", make_status(make_tenant("a")))
    assert found.kind.startswith("text/plain; version=0.0.4")
    assert b'trtd_tenant_ready{tenant="a"} 1.0' in found.body
