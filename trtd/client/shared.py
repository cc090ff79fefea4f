"""SHELL: one `Exchange` used by many threads, without a thread of its own in the usual case.

Leader and followers: of the threads that wait for answers one, the leader, waits on the descriptors and completes the
requests of all; when its own is done it passes the lead on. So a single caller never pays for a switch of threads.
Threads that were answered together will ask together: they leave their next requests to the leader, which sends them as
one message. A thread on its own sends its request itself. Who leads is kept in `trtd.client.lead`.

A background thread starts with the first request that nobody has to wait for (`Client.submit`): it leads when no other
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
from trtd.client.lead import Lead, Seat
from trtd.client.pending import PendingRequest
from trtd.client.transport import Transport
from trtd.errors import Unreachable, Usage

PATIENCE_S = 0.005
"""How long the background thread leaves the lead to a thread that is about to wait for a result."""
LINGER_S = 1.0
"""How long the background thread stays with nothing to do. While it is there a dropped client is not collected."""

LONGEST_POLL_S = 86_400.0
"""poll() takes no more than 24 days. Who wakes up early looks around and waits on."""

_CLOSED = "this client was closed before the answer came"
_FORKED = "a client cannot be used in a process forked from its own; open another one there"


class SharedExchange:
    """An `Exchange` behind a lock, and who waits on it.

    Two locks: one for the exchange, which is held while ZeroMQ works, and that of the lead, which is not and may be
    taken inside the other one. No thread waits for the exchange to bring its request: what lies in the inbox is sent by
    whoever has the exchange, before it leaves it alone.
    """

    def __init__(self, transport: Transport, arenas: Arenas) -> None:
        self._exchange = Exchange(transport, arenas)
        self._inbox: deque[PendingRequest] = deque()
        self._lock = threading.Lock()
        self._lead = Lead()
        self._vacancy = threading.Condition(self._lead.lock)
        self._poll = select.poll()
        for fd in (transport.fd, transport.monitor_fd, self._lead.wake_fd):
            self._poll.register(fd, select.POLLIN)
        self._monitor_fd = transport.monitor_fd
        self._fork_depth = forks.depth
        self._is_closed = False
        self._background: threading.Thread | None = None
        self._is_background_idle = False
        self._called_back_count = 0

    def hold(self, request: PendingRequest) -> None:
        """Take a request that leaves with the next one that is submitted, or when anybody waits for an answer.

        The background thread has to have been called, as by another detached request: it sees to it that nothing is
        held for longer than its patience.
        """
        self._inbox.append(request)
        if self._lead.thread is not None or self._is_background_idle:
            # Nobody would look into the inbox soon.
            self.flush(request.submitted_at, is_detached=True)

    def submit(self, request: PendingRequest, *, is_detached: bool) -> None:
        """Send a request, or keep it until it can be sent.

        What other threads submit while one of them is sending leaves together afterwards.

        Args:
            request: its tensors must not change until it has ended.
            is_detached: whether the request has to go on though nobody may be waiting for it. For any other one
                somebody has to wait.

        Raises:
            trtd.errors.Usage: the client is closed, or belongs to the process that this one was forked from.
        """
        if self._is_closed or forks.depth != self._fork_depth:
            self.check_usable()
        self._inbox.append(request)
        lead = self._lead
        is_due_back = lead.due_back > 0
        if is_due_back:
            lead.come_back()
        if is_detached or not is_due_back:
            self.flush(request.submitted_at, is_detached=is_detached)
        elif lead.is_asleep:
            # Others are about to come. They will have done so by the time at which the leader gets to run.
            lead.wake()
        # A leader that is awake looks into the inbox before it sleeps, and so does one that begins.

    def flush(self, now: float, *, is_detached: bool) -> None:
        """Send what is held, or leave it to the thread that is just sending."""
        callbacks: list[tuple[Callback, Handle[Any]]] = []
        try:
            # Who has the lock looks again after it let go of it.
            while self._inbox and not self._lock.locked():
                with self._lock:
                    callbacks += self._send_inbox(now)
        except BaseException:
            self._lead.wake()
            raise
        if is_detached:
            with self._lead.lock:
                self._call_background()
        if callbacks:
            run_callbacks(callbacks)

    def check_usable(self) -> None:
        """Refuse calls that can have no effect.

        Raises:
            trtd.errors.Usage: as `submit`.
        """
        self._check_process()
        if self._is_closed:
            raise Usage("this client is closed")

    def wait_for(self, handle: Handle[Any], timeout_s: float | None) -> bool:
        """Block until the handle is done; False when the time was up first.

        Raises:
            trtd.errors.Usage: the client belongs to the process that this one was forked from.
        """
        self._check_process()
        until = math.inf if timeout_s is None else time.monotonic() + timeout_s
        lead = self._lead
        while handle.outcome is None:
            seat = None
            with lead.lock:
                if handle.outcome is not None:
                    break
                if until != math.inf and time.monotonic() >= until:
                    return False
                if self._is_closed:
                    handle.outcome = Unreachable(_CLOSED)
                    break
                if lead.thread is None:
                    lead.take(handle)
                else:
                    seat = lead.sit_down(handle)
                    if lead.handle is None and not self._called_back_count:
                        # The background thread leads, and gives way.
                        lead.wake()
            if seat is None or self._follow(seat, until):
                self._serve(handle, until)
        return True

    def call_when_done(self, handle: Handle[Any], callback: Callback) -> bool:
        """Register a callback; False when the handle is done already.

        Raises:
            trtd.errors.Usage: as `wait_for`.
        """
        self._check_process()
        with self._lead.lock:
            if handle.outcome is not None:
                return False
            if not handle.callbacks:
                self._called_back_count += 1
            handle.callbacks += (callback,)
            self._call_background(is_urgent=True)
        return True

    def abandon(self, *handles: Handle[Any]) -> None:
        """Nobody will ask for the outcomes of these handles any more."""
        if self._is_inherited:
            return
        with self._lock:
            kept = [request for request in self._take_inbox() if request.handle not in handles]
            self._inbox.extendleft(reversed(kept))
            for handle in handles:
                self._exchange.abandon(handle.id)
        with self._lead.lock:
            self._see_to_the_rest()
        self._send_the_rest()

    def close(self) -> None:
        """End every request as `Unreachable` and release everything; repeatable. Callbacks run in this thread.

        In a process forked from the client's own nothing happens: all of it is the parent's.
        """
        if self._is_inherited:
            return
        with self._lead.lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._lead.release_all()
            self._vacancy.notify_all()
            self._vacancy.wait_for(lambda: self._lead.thread is None)
        with self._lock:
            callbacks = self._settle(self._exchange.close()) + self._send_inbox(time.monotonic())
            self._lead.close()
        self._send_the_rest()
        run_callbacks(callbacks)
        background = self._background
        if background is not None and background is not threading.current_thread():
            background.join()

    @property
    def _is_inherited(self) -> bool:
        """Whether this process was forked from the client's: no thread of it is here, any lock may be held for ever."""
        return forks.depth != self._fork_depth

    def _check_process(self) -> None:
        if forks.depth != self._fork_depth:
            raise Usage(_FORKED)

    # Sending. But for `_send_the_rest` the caller holds the lock of the exchange.

    def _send_the_rest(self) -> None:
        """To be called by who had the lock: others may have left their requests to this thread."""
        if self._inbox:
            self.flush(time.monotonic(), is_detached=False)

    def _take_inbox(self) -> list[PendingRequest]:
        inbox = self._inbox
        return [inbox.popleft() for _ in range(len(inbox))]

    def _send_inbox(self, now: float) -> list[tuple[Callback, Handle[Any]]]:
        requests = self._take_inbox()
        if self._is_closed:
            return self._settle([(request.handle, Unreachable(_CLOSED)) for request in requests])
        completions = self._exchange.submit(requests, now)
        if self._lead.thread is not None and not self._lead.is_mine:
            # The leader waits on descriptors whose edge this send may have used up.
            if self._exchange.has_work():
                completions += self._exchange.turn(now, is_connection_news=False)
            if any(request.deadline < self._lead.looks_again_at for request in requests):
                self._lead.wake()
        return self._settle(completions) if completions else []

    def _settle(self, completions: list[Completion]) -> list[tuple[Callback, Handle[Any]]]:
        lead, count = self._lead, 0
        callbacks: list[tuple[Callback, Handle[Any]]] = []
        with lead.lock:
            for handle, outcome in completions:
                handle.outcome = outcome
                count += lead.release(handle) + (handle is lead.handle)
                if handle.callbacks:
                    self._called_back_count -= 1
                    callbacks.extend((callback, handle) for callback in handle.callbacks)
                    handle.callbacks = ()
            if count > 1 or lead.due_back > 0:
                lead.due_back = count
        return callbacks

    # Leading and following.

    def _serve(self, handle: Handle[Any] | None, until: float) -> None:
        """Wait on the descriptors and complete whatever comes, until the handle is done or the time is up.

        The thread has the lead, and has given it up afterwards. Without a handle, until nothing is pending or somebody
        else wants the lead. Callbacks run after the lead is given up, so that they may use the client.
        """
        lead, exchange = self._lead, self._exchange
        ready: list[int] = []
        try:
            while True:
                lead.is_asleep = False
                if lead.due_back > 0:
                    lead.gather()
                callbacks: list[tuple[Callback, Handle[Any]]] = []
                with self._lock:
                    now = time.monotonic()
                    if self._inbox:
                        callbacks = self._send_inbox(now)
                    if not self._is_closed and (ready or now >= lead.looks_again_at or exchange.has_work()):
                        completions = exchange.turn(now, is_connection_news=self._monitor_fd in ready)
                        if completions:
                            callbacks += self._settle(completions)
                    with lead.lock:
                        if callbacks or self._is_closed or now >= until or not self._has_to_lead(handle):
                            self._stop_leading()
                            break
                        deadline = exchange.next_deadline()
                        lead.looks_again_at = until if deadline is None else min(until, deadline)
                        lead.is_asleep = True
                ready = [] if self._inbox or lead.due_back > 0 else self._wait(lead.looks_again_at - now)
        except BaseException:
            with lead.lock:
                if lead.is_mine:
                    self._stop_leading()
            raise
        self._send_the_rest()
        if callbacks:
            run_callbacks(callbacks)

    def _has_to_lead(self, handle: Handle[Any] | None) -> bool:
        if handle is not None:
            return handle.outcome is None
        return self._has_requests() and (self._called_back_count > 0 or not self._lead.followers)

    def _has_requests(self) -> bool:
        return bool(len(self._exchange) or self._inbox)

    def _wait(self, wait_s: float) -> list[int]:
        """Wait on the descriptors. Those of the transport that are readable."""
        wait_ms = None if wait_s == math.inf else min(max(wait_s, 0), LONGEST_POLL_S) * 1000
        ready = [fd for fd, _ in self._poll.poll(wait_ms)]
        if self._lead.wake_fd in ready:
            os.eventfd_read(self._lead.wake_fd)
            ready.remove(self._lead.wake_fd)
        return ready

    def _follow(self, seat: Seat, until: float) -> bool:
        """Wait until the handle is done, or the time is up, or this thread leads. Whether it does."""
        try:
            seat.wait(until)
        except BaseException:
            with self._lead.lock:
                self._lead.stand_up(seat)
                if seat.is_offered:
                    self._stop_leading()
            raise
        if until != math.inf:
            with self._lead.lock:
                self._lead.stand_up(seat)
        return seat.is_offered

    # The caller holds the lock of the lead.

    def _stop_leading(self) -> None:
        is_taken = self._lead.give_up()
        if self._is_closed:
            self._vacancy.notify_all()
        elif not is_taken:
            self._see_to_the_rest()

    def _see_to_the_rest(self) -> None:
        if self._is_vacant:
            self._call_background()

    # The background thread.

    def _call_background(self, *, is_urgent: bool = False) -> None:
        if self._background is None:
            self._is_background_idle = False
            self._background = threading.Thread(target=self._run_background, name="trtd-client", daemon=True)
            self._background.start()
        elif self._lead.thread is None and (self._is_background_idle or is_urgent):
            self._is_background_idle = False
            self._vacancy.notify()

    def _run_background(self) -> None:
        while self._take_vacancy():
            self._serve(None, math.inf)

    def _take_vacancy(self) -> bool:
        """Wait until there is something to lead and nobody who does. False for the end of the thread.

        That comes when the client is closed, or when there was nothing to do for a while.
        """
        lead = self._lead
        with lead.lock:
            led_before = None
            while not self._is_closed:
                if not self._is_vacant:
                    led_before = None
                    self._is_background_idle = True
                    if not self._vacancy.wait(LINGER_S) and not self._is_vacant:
                        self._background = None
                        return False
                    self._is_background_idle = False
                elif self._called_back_count or led_before == lead.count:
                    lead.take(None)
                    return True
                else:
                    # Who led meanwhile will soon lead again.
                    count = lead.count
                    led_before = None if self._vacancy.wait(PATIENCE_S) else count
            return False

    @property
    def _is_vacant(self) -> bool:
        """Whether there is something to lead, and nobody who does."""
        return self._lead.thread is None and self._has_requests()
