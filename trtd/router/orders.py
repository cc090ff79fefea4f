"""What the supervisor says, carried out: one function per message, in one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trtd.core.dispatch import Dispatcher
from trtd.core.ids import TenantName, WorkerId
from trtd.observe import Logger
from trtd.router.front import Front
from trtd.router.link import Link
from trtd.router.workers import Workers
from trtd.wire import control

MAX_UNFINISHED = 1000
"""Ids in one answer to AskUnfinished; see `trtd.wire.control.Unfinished`."""


class Orders:
    """Carries out the supervisor's messages, except Stop, which is the loop's.

    Args:
        dispatcher: decides about requests and workers.
        front: the tenants' endpoints.
        workers: the workers' connections.
        link: to the supervisor.
        perform: performs the dispatcher's effects; called before an endpoint is closed, so that errors still leave.
        log: for what changes.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        front: Front,
        workers: Workers,
        link: Link,
        perform: Callable[[float], None],
        log: Logger,
    ) -> None:
        self.epochs: dict[TenantName, int] = {}
        """By tenant: the epoch of the last GateSet."""
        self._dispatcher = dispatcher
        self._front = front
        self._workers = workers
        self._link = link
        self._perform = perform
        self._log = log
        self._handlers: dict[type[Any], Callable[[Any, float], None]] = {
            control.TenantConfigured: self._configure,
            control.TenantForgotten: self._forget,
            control.GateSet: self._set_gate,
            control.AvailabilitySet: self._set_availability,
            control.WorkerAdmitted: self._admit,
            control.WorkerClosed: self._close,
            control.WorkerSetAside: self._set_aside,
            control.WorkerRevoked: self._revoke,
            control.AskUnfinished: self._list_unfinished,
            control.PoisonReleased: self._release_poison,
        }

    def obey(self, message: control.SupervisorMessage, now: float) -> None:
        """Carry out one message."""
        handler = self._handlers.get(type(message))
        if handler is None:
            self._log.error("channel.message_refused", cause=f"{type(message).__name__} is not for the router")
            return
        handler(message, now)

    def _configure(self, message: control.TenantConfigured, now: float) -> None:
        endpoint = message.endpoint
        self._dispatcher.configure_tenant(TenantName(endpoint.tenant), endpoint.limits, now)
        self._front.configure(endpoint)

    def _forget(self, message: control.TenantForgotten, now: float) -> None:
        tenant = TenantName(message.tenant)
        self._dispatcher.forget_tenant(tenant, now)
        self._perform(now)
        self._front.forget(tenant)
        self._workers.forget_tenant(tenant)
        self.epochs.pop(tenant, None)

    def _set_gate(self, message: control.GateSet, now: float) -> None:
        tenant = TenantName(message.tenant)
        self.epochs[tenant] = message.epoch
        self._dispatcher.set_gate(tenant, message.is_open, now)
        self._log.debug("gate.moved", tenant=tenant, is_open=message.is_open, epoch=message.epoch)

    def _set_availability(self, message: control.AvailabilitySet, now: float) -> None:
        self._dispatcher.set_availability(
            TenantName(message.tenant), message.is_available, message.reason, message.retry_after_s, now
        )

    def _admit(self, message: control.WorkerAdmitted, now: float) -> None:
        worker = _worker(message)
        if self._workers.admit(worker, message.pid, message.max_answer_bytes):
            self._dispatcher.admit_worker(worker, now)

    def _close(self, message: control.WorkerClosed, now: float) -> None:
        self._dispatcher.close_worker(_worker(message), now)

    def _set_aside(self, message: control.WorkerSetAside, now: float) -> None:
        worker = _worker(message)
        self._workers.hang_up(worker)
        self._dispatcher.detach_worker(worker, now)

    def _revoke(self, message: control.WorkerRevoked, now: float) -> None:
        worker = _worker(message)
        self._workers.forget(worker)
        self._dispatcher.revoke_worker(worker, message.fault, now)

    def _list_unfinished(self, message: control.AskUnfinished, _now: float) -> None:
        tenant = TenantName(message.tenant)
        ids = self._dispatcher.unfinished(tenant) if tenant in self._front.endpoints else []
        shown = tuple(request_id.hex() for request_id in ids[:MAX_UNFINISHED])
        self._link.tell(control.Unfinished(message.tenant, shown, len(ids)))

    def _release_poison(self, message: control.PoisonReleased, _now: float) -> None:
        self._dispatcher.release_poison(TenantName(message.tenant))


def _worker(
    message: control.WorkerAdmitted | control.WorkerClosed | control.WorkerRevoked | control.WorkerSetAside,
) -> WorkerId:
    return WorkerId(TenantName(message.tenant), message.replica, message.generation)
