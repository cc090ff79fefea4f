"""The router's one thread: wait, hear the supervisor, take results, take requests, perform what follows.

The decisions are the dispatcher's (`trtd.core.dispatch`); this file moves frames between it and the sockets.
"""

from __future__ import annotations

import select
import time

import zmq

from trtd.child.channel import ChannelClosed
from trtd.child.waiting import wait
from trtd.core.dispatch import (
    AnnounceTenantEmpty,
    AnnounceWorkerEmpty,
    BlameClient,
    Deliver,
    Dispatch,
    DispatchEffect,
    Dispatcher,
    Refuse,
)
from trtd.core.flight import Flight
from trtd.core.ids import TenantName
from trtd.core.polling import BusyPoll
from trtd.core.suspects import ResentRequests
from trtd.errors import ErrorCode, ExitCode, TrtdError
from trtd.observe import Logger, RateLimit
from trtd.router import blame
from trtd.router.access import Access
from trtd.router.chores import Chores
from trtd.router.endpoints import Endpoint
from trtd.router.front import Front
from trtd.router.guests import Received
from trtd.router.intake import Intake, error_frames, fingerprint
from trtd.router.link import Link
from trtd.router.orders import Orders
from trtd.router.sockets import Port
from trtd.router.turns import MAX_READ_S
from trtd.router.workers import Arrived, News, Workers
from trtd.wire.codec import read_request_id
from trtd.wire.control import RouterReady, Stop, SupervisorMessage, WorkerIsEmpty, WorkerMisbehaved
from trtd.wire.settings import RouterSettings

RESEND_GRACE_S = 1.0
"""How long clients of a former router may take to come back before a drained tenant counts as empty."""
MAX_ANSWERS = 64
"""Results taken in one turn of the loop, and what is left of the last message: a turn is what a request of a quiet
tenant waits."""
READABLE = select.EPOLLIN
SHORT_WAIT_S = 0.002
"""Waits that are shorter are too fine for epoll, which counts in milliseconds."""
LOOK_EVERY_S = 0.02
"""How often is looked at requests that were sent again and wait for others, and at workers that wait for room."""
STOP_PATIENCE_S = 2.5
"""How long the last answers may take after Stop; with the time in which they leave, less than the supervisor waits."""


class RouterLoop:
    """The router between its sockets.

    Args:
        settings: as the supervisor gave them.
        link: to the supervisor.
        context: for all sockets; terminated by the caller.
        first_lease: number of the first lease, different in each life of the router.
        flight: what a former life left of the requests that it had in hand; None where nothing tells.
        log: where events go.
    """

    def __init__(
        self,
        settings: RouterSettings,
        link: Link,
        context: zmq.Context[zmq.Socket[bytes]],
        first_lease: int,
        log: Logger,
        flight: Flight | None = None,
    ) -> None:
        self._clock = time.monotonic
        self._log = log
        self._limit = RateLimit(1.0)
        self._link = link
        self._epoll = select.epoll()
        self._watched: set[int] = set()
        self._used: set[Port] = set()
        grace_s = RESEND_GRACE_S if settings.generation > 1 else 0.0
        self._dispatcher = Dispatcher(fingerprint, first_lease, grace_s)
        self._access = Access(context, self._clock, log)
        self._workers = Workers(settings.workers_path, self._watch, log, self._has_room)
        self._front = Front(
            context,
            settings,
            self._access,
            self._used,
            self._watch_port,
            log,
            self._clock,
            self._workers.close_arena,
        )
        self._resent: ResentRequests | None = None
        submit = self._dispatcher.submit
        if flight is not None and flight.has_crashed:
            self._resent = ResentRequests(flight, submit, self._dispatcher.convict, self._clock())
            submit = self._resent.submit
        self._intake = Intake(self._dispatcher, submit, self._access, self._workers.models, self._workers.has_any)
        self._orders = Orders(self._dispatcher, self._front, self._workers, link, self._perform, log)
        self._chores = Chores(settings, link, self._dispatcher, self._front, self._look_after, log, self._clock())
        self._given_enough: set[TenantName] = set()
        self._stop_by: float | None = None
        self._answer_polls = BusyPoll(settings.busy_poll_s)
        self._request_polls = BusyPoll(settings.busy_poll_s)
        for fd in (link.fd, self._access.fd):
            self._watch(fd, READABLE)
        link.tell(RouterReady(settings.generation))

    def run(self) -> ExitCode:
        """Turn until the supervisor says Stop, is gone, or the memory limit is exceeded."""
        # Most turns move one request or one answer, right after a sleep: then every step that is not taken counts, for
        # code that ran long ago is not in the processor's caches any more.
        front, workers, chores = self._front, self._workers, self._chores
        while True:
            ready = self._wait()
            now = self._clock()
            try:
                if front.paused:
                    front.resume_due(now)
                for fd, events in ready:
                    self._heed(fd, events, now)
                if workers.waiting:
                    workers.retry(now)
                if workers.ready:
                    self._take_results(now)
                if front.turns.has_input:
                    front.read(self._take_request)
                if self._resent is not None and self._resent.is_waiting:
                    self._resent.advance(now)
                self._dispatcher.advance(now)
                self._perform(now)
                if front.bundling:
                    front.send_bundles(now)
                if self._given_enough:
                    self._pause_busy(now)
                chores.turns += 1
                exit_code = None
                if now >= chores.due or self._front.late or self._stop_by is not None:
                    exit_code = self._keep_time(now)
            except ChannelClosed as error:
                self._log.error("supervisor.lost", cause=str(error))
                return ExitCode.TEMPORARY
            if exit_code is not None:
                return exit_code

    def _wait(self) -> list[tuple[int, int]]:
        """Descriptors that want attention, waiting for the first one until something is due."""
        for port in self._used:
            if port.has_input():
                self._front.heed(port.fd)
        self._used.clear()
        ready = self._epoll.poll(0)
        if ready or self._workers.ready or self._front.turns.has_input:
            return ready
        due = self._chores.next_run()
        if self._front.paused:
            due = min(due, self._front.next_resume())
        if self._workers.waiting or (self._resent is not None and self._resent.is_waiting):
            due = min(due, self._clock() + LOOK_EVERY_S)
        deadline = self._dispatcher.next_deadline()
        timeout = (due if deadline is None or deadline > due else deadline) - self._clock()
        if timeout <= 0.0:
            return ready
        polls = self._answer_polls if self._dispatcher.owes_answers else self._request_polls
        return wait(polls, timeout, self._look, self._sleep)

    def _look(self) -> list[tuple[int, int]]:
        return self._epoll.poll(0)

    def _sleep(self, timeout: float | None) -> list[tuple[int, int]]:
        if timeout is not None and timeout < SHORT_WAIT_S:
            select.select((self._epoll,), (), (), timeout)
            timeout = 0.0
        return self._epoll.poll(timeout)

    def _watch(self, fd: int, events: int) -> None:
        """Wait for these events of a descriptor, for none when 0."""
        if not events:
            self._watched.discard(fd)
            self._epoll.unregister(fd)
        elif fd in self._watched:
            self._epoll.modify(fd, events)
        else:
            self._watched.add(fd)
            self._epoll.register(fd, events)

    def _watch_port(self, fd: int, is_open: bool) -> None:
        self._watch(fd, READABLE if is_open else 0)

    def _heed(self, fd: int, events: int, now: float) -> None:
        if self._workers.heed(fd, events) or self._front.heed(fd):
            return
        if fd == self._link.fd:
            for message in self._link.receive_all():
                self._obey(message, now)
        else:
            self._access.serve()

    def _obey(self, message: SupervisorMessage, now: float) -> None:
        if isinstance(message, Stop):
            self._stop_by = now + STOP_PATIENCE_S
            return
        try:
            self._orders.obey(message, now)
        except ChannelClosed:
            raise
        except Exception as error:
            self._report(f"the supervisor's {type(message).__name__}", error)

    def _take_results(self, now: float) -> None:
        clock = self._clock
        until = clock() + MAX_READ_S
        taken = 0
        while taken < MAX_ANSWERS and self._workers.ready and (not taken or clock() < until):
            answers = 0
            try:
                arrived = self._workers.read()
                if arrived is not None:
                    answers = self._take(arrived, now)
            except ChannelClosed:
                raise
            except Exception as error:
                self._report("a worker's message", error)
            # One without answers takes its time as well.
            taken += answers or 1

    def _take(self, arrived: Arrived, now: float) -> int:
        """Handle one message of a worker; the number of answers in it."""
        worker, news, results, reason = arrived
        if news is News.ANSWERED:
            self._dispatcher.complete(worker, results, now)
            if self._front.paused:
                self._front.resume(worker.tenant)
        elif news is News.ATTACHED:
            # After the first one it comes over a new connection: what was out on the old one may be lost.
            self._dispatcher.detach_worker(worker, now)
            self._dispatcher.admit_worker(worker, now)
            self._log.debug("worker.attached", tenant=worker.tenant, worker=str(worker))
        else:
            self._dispatcher.suspend_worker(worker, now)
            self._log.debug("worker.connection_lost", tenant=worker.tenant, worker=str(worker))
            if news is News.MISBEHAVED:
                # The supervisor replaces it and revokes its leases, so that they count and cannot go round for ever.
                self._link.tell(WorkerMisbehaved(*worker, reason))
        return len(results)

    def _has_room(self, tenant: TenantName, size_bytes: int, begun_bytes: int) -> bool:
        endpoint = self._front.endpoints.get(tenant)
        return endpoint is None or endpoint.has_room(size_bytes, begun_bytes)

    def _look_after(self, now: float) -> None:
        self._front.look_after(now)
        self._workers.look_after()

    def _take_request(self, endpoint: Endpoint, received: Received) -> int:
        now = self._clock()
        try:
            return self._intake.take(endpoint, received, now)
        except Exception as error:
            self._report("a client's message", error, tenant=endpoint.tenant)
            caller, header, *_ = received
            frames = error_frames(read_request_id(header), ErrorCode.INTERNAL, "a defect of the router")
            endpoint.deliver(caller.route, frames, now)
            return 1

    def _perform(self, now: float) -> None:
        """Do what the dispatcher decided, until it has decided nothing more."""
        dispatcher, endpoints = self._dispatcher, self._front.endpoints
        while effects := dispatcher.take_effects():
            for effect in effects:
                try:
                    if type(effect) is Deliver:
                        request = effect.request
                        endpoints[request.tenant].deliver(request.route, effect.frames, now)
                        if self._resent is not None:
                            self._resent.note_answered(request.id, now)
                    else:
                        self._perform_one(effect, now)
                except ChannelClosed:
                    raise
                except Exception as error:
                    self._report(f"performing {type(effect).__name__}", error)

    def _perform_one(self, effect: DispatchEffect, now: float) -> None:
        if isinstance(effect, Dispatch):
            self._workers.send(effect, now)
            if effect.is_enough:
                self._given_enough.add(effect.worker.tenant)
        elif isinstance(effect, Refuse):
            request = effect.request
            frames = error_frames(request.id, effect.code, effect.message, effect.retry_after_s)
            self._front.endpoints[request.tenant].deliver(request.route, frames, now)
            if self._resent is not None:
                self._resent.note_answered(request.id, now)
        elif isinstance(effect, AnnounceTenantEmpty):
            self._chores.announce_empty(effect.tenant, self._orders.epochs.get(effect.tenant, 0))
        elif isinstance(effect, AnnounceWorkerEmpty):
            self._link.tell(WorkerIsEmpty(*effect.worker))
        elif isinstance(effect, BlameClient):
            blame.tell(effect, self._link, self._log)

    def _pause_busy(self, now: float) -> None:
        """Leave the requests of tenants whose workers have enough to go on with where they are for a moment."""
        for tenant in self._given_enough:
            until = self._dispatcher.busy_until(tenant)
            if until > now:
                self._front.pause(tenant, until)
        self._given_enough.clear()

    def _keep_time(self, now: float) -> ExitCode | None:
        """An exit code when the loop has to end."""
        if now >= self._chores.next_run() and (exit_code := self._chores.run(now)) is not None:
            return exit_code
        if self._stop_by is not None and (now >= self._stop_by or not self._is_busy()):
            return ExitCode.OK
        return None

    def _is_busy(self) -> bool:
        """Whether a request or an answer is still on its way."""
        if self._resent is not None and self._resent.is_waiting:
            return True
        return any(
            endpoint.has_parked or self._dispatcher.tenant(tenant).requests
            for tenant, endpoint in self._front.endpoints.items()
        )

    def _report(self, what: str, error: Exception, **fields: object) -> None:
        """Log a failure that the loop outlives, without letting it fill the log."""
        held_back = self._limit.take(what, self._clock())
        if held_back is not None:
            cause = error.message if isinstance(error, TrtdError) else repr(error)
            self._log.error("message.failed", what=what, cause=cause, held_back=held_back, **fields)

    def close(self) -> None:
        """Close all sockets; answers that libzmq holds get a moment to leave while the context is terminated."""
        self._front.close()
        self._workers.close()
        self._access.close()
        self._epoll.close()
