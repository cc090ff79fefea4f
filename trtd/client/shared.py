"""SHELL: one `Exchange` used by many threads, without a thread of its own in the usual case.

Leader and followers: of the threads that wait for answers one, the leader, waits on the descriptors and completes the
requests of all; when its own is done it passes the lead on. So a single caller never pays for a switch of threads. A
background thread starts with the first request that nobody has to wait for (`Client.submit`): it leads when no other
thread does, at once where a callback is due and after a moment otherwise.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections import deque
from typing import Any

from trtd.client import forks
from trtd.client.arenas import Arenas
from trtd.client.exchange import Completion, Exchange
from trtd.client.handle import Callback, Handle, run_callbacks
from trtd.client.pending import PendingRequest
from trtd.client.transport import Transport
from trtd.errors import Unreachable, Usage

PATIENCE_S = 0.005
"""How long the background thread leaves the lead to a thread that is about to wait for a result."""


class SharedExchange:
    """An `Exchange` behind a lock, and who waits on it."""

    def __init__(self, transport: Transport, arenas: Arenas) -> None:
        self._exchange = Exchange(transport, arenas)
        self._inbox: deque[PendingRequest] = deque()
        self._lock = threading.Lock()
        self._vacancy = threading.Condition(self._lock)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        for fd in (transport.fd, transport.monitor_fd, self._wake_fd):
            self._poll.register(fd, select.POLLIN)
        self._monitor_fd = transport.monitor_fd
        self._fork_depth = forks.depth
        self._is_closed = False
        self._leader: int | None = None
        self._leader_handle: Handle[Any] | None = None
        self._led_count = 0
        self._looks_again_at = math.inf
        self._followers: dict[threading.Lock, None] = {}
        self._background: threading.Thread | None = None
        self._is_background_idle = False
        self._called_back_count = 0

    def hold(self, request: PendingRequest) -> None:
        """Take a request that leaves with the next one that is submitted, or when anybody waits for an answer.

        The background thread has to have been called, as by another detached request: it sees to it that nothing is
        held for longer than its patience.
        """
        self._inbox.append(request)
        if self._leader is not None or self._is_background_idle:
            # Nobody would look into the inbox soon.
            self.flush(request.submitted_at, is_detached=True)

    def submit(self, request: PendingRequest, *, is_detached: bool) -> None:
        """Send a request, or keep it until it can be sent.

        What other threads submit while one of them is sending leaves together afterwards.

        Args:
            request: its tensors must not change until it has ended.
            is_detached: whether the request has to go on though nobody may be waiting for it.

        Raises:
            trtd.errors.Usage: the client is closed, or belongs to the process that this one was forked from.
        """
        if self._is_closed or forks.depth != self._fork_depth:
            self.check_usable()
        self._inbox.append(request)
        self.flush(request.submitted_at, is_detached=is_detached)

    def flush(self, now: float, *, is_detached: bool) -> None:
        """Send what is held.

        Raises:
            trtd.errors.Usage: as `submit`.
        """
        with self._lock:
            if self._is_closed:
                raise Usage("this client is closed")
            callbacks = self._send_inbox(now) if self._inbox else []
            if is_detached:
                self._call_background()
        if callbacks:
            run_callbacks(callbacks)

    def check_usable(self) -> None:
        """Refuse calls that can have no effect.

        Raises:
            trtd.errors.Usage: as `submit`.
        """
        if forks.depth != self._fork_depth:
            raise Usage("a client cannot be used in a process forked from its own; open another one there")
        if self._is_closed:
            raise Usage("this client is closed")

    def wait_for(self, handle: Handle[Any], timeout_s: float | None) -> bool:
        """Block until the handle is done; False when the time was up first."""
        until = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._lock:
                if handle.outcome is not None:
                    return True
                if time.monotonic() >= until:
                    return False
                if self._is_closed:
                    handle.outcome = Unreachable("this client was closed before the answer came")
                    return True
                seat = None if self._leader is None else self._sit_down(handle)
                if seat is None:
                    self._leader, self._leader_handle = threading.get_ident(), handle
                    self._led_count += 1
            if seat is None:
                self._lead(handle, until)
            else:
                self._follow(seat, handle, until)

    def call_when_done(self, handle: Handle[Any], callback: Callback) -> bool:
        """Register a callback; False when the handle is done already."""
        with self._lock:
            if handle.outcome is not None:
                return False
            if not handle.callbacks:
                self._called_back_count += 1
            handle.callbacks += (callback,)
            self._call_background(is_urgent=True)
        return True

    def abandon(self, *handles: Handle[Any]) -> None:
        """Nobody will ask for the outcomes of these handles any more."""
        with self._lock:
            kept = [request for request in self._take_inbox() if request.handle not in handles]
            self._inbox.extendleft(reversed(kept))
            for handle in handles:
                self._exchange.abandon(handle.id)
            self._pass_on()

    def close(self) -> None:
        """End every request as `Unreachable` and release everything; repeatable. Callbacks run in this thread."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            for seat in list(self._followers):
                self._release(seat)
            if self._leader is not None:
                self._wake_leader()
            self._vacancy.notify_all()
            self._vacancy.wait_for(lambda: self._leader is None)
            self._exchange.submit(self._take_inbox(), time.monotonic())
            callbacks = self._settle(self._exchange.close())
            os.close(self._wake_fd)
        run_callbacks(callbacks)
        if self._background is not None and self._background is not threading.current_thread():
            self._background.join()

    # Sending. The caller holds the lock.

    def _take_inbox(self) -> list[PendingRequest]:
        inbox = self._inbox
        return [inbox.popleft() for _ in range(len(inbox))]

    def _send_inbox(self, now: float) -> list[tuple[Callback, Handle[Any]]]:
        inbox = self._inbox
        requests = [inbox.popleft()] if len(inbox) == 1 else self._take_inbox()
        completions = self._exchange.submit(requests, now)
        if self._leader is not None and self._leader != threading.get_ident():
            # The leader waits on descriptors whose edge this send may have used up.
            if self._exchange.has_work():
                completions += self._exchange.turn(now, is_connection_news=False)
            if any(request.deadline < self._looks_again_at for request in requests):
                self._wake_leader()
        return self._settle(completions) if completions else []

    # Leading. But for `_lead`, `_wait` and `_follow` the caller holds the lock.

    def _lead(self, handle: Handle[Any] | None, until: float) -> None:
        """Wait on the descriptors and complete whatever comes, until the handle is done or the time is up.

        Without a handle, until nothing is pending or somebody else wants the lead. Callbacks run after the lead is
        given up, so that they may use the client.
        """
        is_first, is_news = True, False
        try:
            while True:
                with self._lock:
                    now = time.monotonic()
                    callbacks: list[tuple[Callback, Handle[Any]]] = []
                    if self._inbox and not self._is_closed:
                        callbacks = self._send_inbox(now)
                    if not self._is_closed and (not is_first or self._exchange.has_work()):
                        callbacks += self._settle(self._exchange.turn(now, is_connection_news=is_news))
                    if callbacks or self._is_closed or now >= until or not self._has_to_lead(handle):
                        self._stop_leading()
                        break
                    deadline = self._exchange.next_deadline()
                    self._looks_again_at = until if deadline is None else min(until, deadline)
                    wait_s = self._looks_again_at - now
                is_first, is_news = False, self._wait(wait_s)
        except BaseException:
            with self._lock:
                if self._leader == threading.get_ident():
                    self._stop_leading()
            raise
        run_callbacks(callbacks)

    def _has_to_lead(self, handle: Handle[Any] | None) -> bool:
        if handle is not None:
            return handle.outcome is None
        return self._has_requests() and (self._called_back_count > 0 or not self._followers)

    def _has_requests(self) -> bool:
        return bool(len(self._exchange) or self._inbox)

    def _wait(self, wait_s: float) -> bool:
        """Wait on the descriptors. Whether there is news of the connection."""
        is_news = False
        for fd, _ in self._poll.poll(None if wait_s == math.inf else max(wait_s, 0) * 1000):
            if fd == self._monitor_fd:
                is_news = True
            elif fd == self._wake_fd:
                os.eventfd_read(fd)
        return is_news

    def _stop_leading(self) -> None:
        self._leader = self._leader_handle = None
        self._looks_again_at = math.inf
        if self._is_closed:
            self._vacancy.notify_all()
        else:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._leader is not None:
            return
        if self._followers:
            self._release(next(iter(self._followers)))
        elif self._has_requests():
            self._call_background()

    def _settle(self, completions: list[Completion]) -> list[tuple[Callback, Handle[Any]]]:
        callbacks: list[tuple[Callback, Handle[Any]]] = []
        for handle, outcome in completions:
            handle.outcome = outcome
            if handle.seats:
                for seat in handle.seats:
                    self._release(seat)
            if handle is self._leader_handle and self._leader != threading.get_ident():
                self._wake_leader()
            if handle.callbacks:
                self._called_back_count -= 1
                callbacks.extend((callback, handle) for callback in handle.callbacks)
                handle.callbacks = ()
        return callbacks

    def _wake_leader(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    # Following.

    def _sit_down(self, handle: Handle[Any]) -> threading.Lock:
        seat = threading.Lock()
        seat.acquire()
        handle.seats += (seat,)
        self._followers[seat] = None
        if self._leader_handle is None and not self._called_back_count:
            # The background thread leads, and gives way.
            self._wake_leader()
        return seat

    def _release(self, seat: threading.Lock) -> None:
        if seat in self._followers:
            del self._followers[seat]
            seat.release()

    def _follow(self, seat: threading.Lock, handle: Handle[Any], until: float) -> None:
        """Wait until the handle is done, or the lead is free, or the time is up."""
        is_interrupted = True
        try:
            seat.acquire(timeout=-1 if until == math.inf else max(until - time.monotonic(), 0))
            is_interrupted = False
        finally:
            with self._lock:
                handle.seats = tuple(other for other in handle.seats if other is not seat)
                self._followers.pop(seat, None)
                # The lead may have been offered to this thread, which will not take it.
                if is_interrupted or handle.outcome is not None or time.monotonic() >= until:
                    self._pass_on()

    # The background thread.

    def _call_background(self, *, is_urgent: bool = False) -> None:
        if self._background is None:
            self._background = threading.Thread(target=self._serve, name="trtd-client", daemon=True)
            self._background.start()
        elif self._leader is None and (self._is_background_idle or is_urgent):
            self._is_background_idle = False
            self._vacancy.notify()

    def _serve(self) -> None:
        while self._take_vacancy():
            self._lead(None, math.inf)

    def _take_vacancy(self) -> bool:
        """Wait until there is something to lead and nobody who does. False when the client is closed."""
        with self._lock:
            led_before = None
            while not self._is_closed:
                if self._leader is not None or not self._has_requests():
                    self._is_background_idle, led_before = True, None
                    self._vacancy.wait()
                    self._is_background_idle = False
                elif self._called_back_count or led_before == self._led_count:
                    self._leader, self._leader_handle = threading.get_ident(), None
                    return True
                else:
                    # Who led meanwhile will soon lead again.
                    count = self._led_count
                    led_before = None if self._vacancy.wait(PATIENCE_S) else count
            return False
