"""What each address answers, given the supervisor's records. Pure but for the one who asks the supervisor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from trtd.health.requests import Request
from trtd.wire.health import ASK_BEAT, ASK_METRICS, ASK_STATUS
from trtd.wire.status import Status, TenantStatus

TEXT = "text/plain; charset=utf-8"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"

OK = "200 OK"
NOT_FOUND = "404 Not Found"
UNAVAILABLE = "503 Service Unavailable"

READY_OF = "/ready/"

Ask = Callable[[str], Awaitable[Any]]
"""Asks the supervisor for a record that is not older than the question; raises `SupervisorSilent`."""


class SupervisorSilent(Exception):
    """The supervisor gave no answer in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status line, content type and body of an answer."""

    status: str
    body: bytes
    kind: str = TEXT


async def answer(request: Request, ask: Ask) -> Answer:
    """The answer to a request; 503 for everything while the supervisor is silent."""
    try:
        return await _answer(request.path, ask)
    except SupervisorSilent as error:
        return Answer(UNAVAILABLE, f"{error}\n".encode())


async def _answer(path: str, ask: Ask) -> Answer:
    if path == "/live":
        await ask(ASK_BEAT)
        return Answer(OK, b"live\n")
    if path == "/ready":
        return ready(await ask(ASK_STATUS))
    if path.startswith(READY_OF):
        return tenant_ready(await ask(ASK_STATUS), path.removeprefix(READY_OF))
    if path == "/metrics":
        # Half of this process's start would be this import, and a probe may be waiting.
        from trtd.health.exposition import exposition

        return Answer(OK, exposition(await ask(ASK_METRICS)), EXPOSITION)
    return Answer(NOT_FOUND, b"there are /live, /ready, /ready/TENANT and /metrics\n")


def ready(status: Status) -> Answer:
    """Whether every required tenant would take a request; the body names what would not."""
    if status["is_ready"]:
        return Answer(OK, b"ready\n")
    missing = [_why(tenant) for tenant in status["tenants"] if tenant["is_required"] and not tenant["is_ready"]]
    return _not_ready(status, ", ".join(missing))


def tenant_ready(status: Status, name: str) -> Answer:
    """Whether one tenant would take a request, required or not."""
    found = next((tenant for tenant in status["tenants"] if tenant["name"] == name), None)
    if found is None:
        return Answer(NOT_FOUND, b"there is no such tenant\n")
    return Answer(OK, b"ready\n") if found["is_ready"] else _not_ready(status, _why(found, with_reason=True))


def _not_ready(status: Status, why: str) -> Answer:
    """Without a router nobody is served, whatever the tenants' workers are."""
    router = status["router"]["state"]
    return Answer(UNAVAILABLE, f"not ready: {why if router == 'ready' else f'router {router}'}\n".encode())


def _why(tenant: TenantStatus, *, with_reason: bool = False) -> str:
    reason = f", {tenant['reason']}" if with_reason and tenant["reason"] else ""
    return f"{tenant['name']} {tenant['health']}{reason}"
