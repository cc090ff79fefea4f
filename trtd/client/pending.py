"""PURE: the requests that have no answer yet: which have to be sent, sent again, or given up.

Knows one connection that comes and goes. Sending and receiving is in `trtd.client.exchange`; the text of an error is
made there too, because it looks at the world.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from trtd.client.calls import Form
from trtd.core.ids import RequestId
from trtd.wire.messages import ClientMessage, InferRequest

SMALLEST_TIMEOUT_S = 0.001
"""What a request that is sent at its very deadline still asks for, so that the daemon is the one to answer."""

MOST_STALE_CHECKS = 64


class Verdict(Enum):
    """Why a request is given up without an answer."""

    NEVER_CONNECTED = "there was no connection at any time"
    DISCONNECTED = "there was a connection, and there is none at the deadline"
    NOT_TAKEN = "the connection takes no more"
    NOT_ANSWERED = "it was sent, and neither an answer nor the daemon's own deadline came"


@dataclass(slots=True, eq=False)
class PendingRequest:
    """One request without an answer.

    Attributes:
        id: its id.
        form: makes its message.
        tensors: its tensor frames.
        submitted_at: instant of the call.
        deadline: instant by which the daemon owes an answer.
        gives_up_at: instant at which this side stops to wait for the daemon's word on the deadline.
        handle: whose it is; opaque here.
        is_sent: whether it is out on the present connection.
        send_count: how often it went out.
    """

    id: RequestId
    form: Form
    tensors: Sequence[Any]
    submitted_at: float
    deadline: float
    gives_up_at: float
    handle: Any
    is_sent: bool = False
    send_count: int = 0

    def message_at(self, now: float) -> ClientMessage:
        """The message to send at this instant: with the time that is left, and whether it was sent before."""
        message = self.form.message(self.id)
        if isinstance(message, InferRequest):
            timeout_s = max(self.deadline - now, SMALLEST_TIMEOUT_S)
            return replace(message, timeout_s=timeout_s, is_resent=self.send_count > 0)
        return message


class PendingRequests:
    """All requests of one client that have no answer yet, in the order of their submission.

    The queue and the heap hold ids, so that what is answered is free at once.
    """

    def __init__(self) -> None:
        self.is_connected = False
        self.was_connected = False
        self._requests: dict[RequestId, PendingRequest] = {}
        self._unsent: deque[RequestId] = deque()
        self._checks: list[tuple[float, RequestId]] = []

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: PendingRequest) -> None:
        """A new request, to be sent after those that wait to be sent."""
        self._requests[request.id] = request
        self._unsent.append(request.id)
        self._check_at(request.deadline, request.id)

    def connected(self) -> None:
        """There is a connection."""
        self.is_connected = self.was_connected = True

    def disconnected(self) -> None:
        """The connection is gone, and whatever was on it: every request has to be sent (again), in the old order."""
        self.is_connected = False
        for request in self._requests.values():
            request.is_sent = False
        self._unsent = deque(self._requests)

    def next_to_send(self) -> PendingRequest | None:
        """The first request that is to be sent now, None when there is no connection or nothing to send."""
        if not self.is_connected:
            return None
        self._drop_stale()
        return self._requests[self._unsent[0]] if self._unsent else None

    def sent(self) -> None:
        """The request named by `next_to_send` went out."""
        request = self._requests[self._unsent.popleft()]
        request.is_sent = True
        request.send_count += 1

    def oldest_sent(self) -> PendingRequest | None:
        """The request that has been out on the present connection for longest."""
        return next((request for request in self._requests.values() if request.is_sent), None)

    def answered(self, request_id: RequestId) -> PendingRequest | None:
        """The request that this answer belongs to; None for a second answer, or one that nobody waits for any more."""
        return self._requests.pop(request_id, None)

    def abandon(self, request_id: RequestId) -> None:
        """Nobody waits for this request any more; its answer will be dropped."""
        self._requests.pop(request_id, None)

    def abandon_all(self) -> list[PendingRequest]:
        """Empty the table and return what was in it."""
        requests = list(self._requests.values())
        self._requests.clear()
        self._unsent.clear()
        self._checks.clear()
        return requests

    def expire(self, now: float) -> list[tuple[PendingRequest, Verdict]]:
        """Give up what is due.

        A request that is out on a live connection is owed an answer at its deadline by the daemon, and is waited for
        until `gives_up_at`; every other one is given up at its deadline.
        """
        expired: list[tuple[PendingRequest, Verdict]] = []
        while self._checks and self._checks[0][0] <= now:
            _, request_id = heapq.heappop(self._checks)
            request = self._requests.get(request_id)
            if request is None:
                continue
            if self.is_connected and request.is_sent and now < request.gives_up_at:
                self._check_at(request.gives_up_at, request_id)
                continue
            del self._requests[request_id]
            expired.append((request, self._verdict(request)))
        if expired:
            self._drop_stale()
        return expired

    def next_deadline(self) -> float | None:
        """When `expire` is to be called next."""
        while self._checks and self._checks[0][1] not in self._requests:
            heapq.heappop(self._checks)
        return self._checks[0][0] if self._checks else None

    def _verdict(self, request: PendingRequest) -> Verdict:
        if not self.is_connected:
            return Verdict.DISCONNECTED if self.was_connected else Verdict.NEVER_CONNECTED
        return Verdict.NOT_ANSWERED if request.is_sent else Verdict.NOT_TAKEN

    def _check_at(self, at: float, request_id: RequestId) -> None:
        # Checks of answered requests stay in the heap until their time: they must not pile up behind long timeouts.
        if len(self._checks) > 2 * len(self._requests) + MOST_STALE_CHECKS:
            self._checks = [check for check in self._checks if check[1] in self._requests]
            heapq.heapify(self._checks)
        heapq.heappush(self._checks, (at, request_id))

    def _drop_stale(self) -> None:
        while self._unsent and self._unsent[0] not in self._requests:
            self._unsent.popleft()
