"""PURE: the requests that have no answer yet: which have to be sent, sent again, or given up; whose areas are safe.

Knows one connection that comes and goes. Sending and receiving is in `trtd.client.exchange`; the text of an error is
made there too, because it looks at the world.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from typing import Any, NamedTuple, Protocol

from trtd.client.answers import Area
from trtd.client.calls import Form
from trtd.core.ids import RequestId
from trtd.errors import ErrorCode
from trtd.wire.messages import ClientMessage, InferRequest

SMALLEST_TIMEOUT_S = 0.001
"""What a request that is sent at its very deadline still asks for, so that the daemon is the one to answer."""

GRACE_S = 1.0
"""How long after a deadline the client still waits for the daemon's own word on it."""

MOST_STALE_CHECKS = 64


_ENDS_OF_WORKERS_AND_THE_DOOR = frozenset(
    {
        ErrorCode.MALFORMED,
        ErrorCode.UNSUPPORTED_VERSION,
        ErrorCode.UNSUPPORTED_DTYPE,
        ErrorCode.UNKNOWN_MODEL,
        ErrorCode.INVALID_INPUT,
        ErrorCode.TOO_LARGE,
        ErrorCode.OVERLOADED,
        ErrorCode.OUT_OF_MEMORY,
        ErrorCode.MODEL_FAILED,
        ErrorCode.ARENA_UNKNOWN,
    }
)
"""Errors after which no worker holds the request: the worker itself has said so, or none ever got it.

All others may come from the router while a worker is still busy: the deadline, a worker that is gone, a drain.
"""


class Placement(NamedTuple):
    """How one request travels through shared memory.

    Attributes:
        form: makes its header.
        frames: what follows the header; references for what is in an arena.
        area: for its outputs, None without.
        epoch: of the arenas, in which the keys hold.
        keys: of the arenas that it names.
        regions: that end with it, the copies of its inputs.
    """

    form: Form
    frames: Sequence[Any]
    area: Area | None
    epoch: int
    keys: set[int]
    regions: Sequence[Any]


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
        placement: how it travels through shared memory; None when it travels in frames, or has to.
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
    placement: Placement | None = None
    is_sent: bool = False
    send_count: int = 0

    def is_area_free_after(self, code: str | None) -> bool:
        """Whether no worker can still write into the area, once this end has come on the present connection.

        Args:
            code: of the error, None for a result.
        """
        return self.send_count == 1 and (code is None or code in _ENDS_OF_WORKERS_AND_THE_DOOR)

    def message_at(self, now: float, form: Form | None = None) -> ClientMessage:
        """The message to send at this instant: with the time that is left, and whether it was sent before.

        Args:
            now: monotonic seconds.
            form: of the placement, where it travels so.
        """
        message = (form or self.form).message(self.id)
        if isinstance(message, InferRequest):
            timeout_s = max(self.deadline - now, SMALLEST_TIMEOUT_S)
            return replace(message, timeout_s=timeout_s, is_resent=self.send_count > 0)
        return message


class Owner(Protocol):
    """What is asked of the handle of a request."""

    @property
    def id(self) -> RequestId:
        """Of the request."""
        ...


def new_request(
    handle: Owner,
    form: Form,
    frames: Sequence[Any],
    timeout_s: float,
    now: float,
    placement: Placement | None = None,
) -> PendingRequest:
    """A request that is submitted now, with the id of its handle."""
    deadline = now + timeout_s
    return PendingRequest(handle.id, form, frames, now, deadline, deadline + GRACE_S, handle, placement)


class PendingRequests:
    """All requests of one client that have no answer yet, in the order of their submission.

    The queue and the checks, in the order of their instants, hold ids, so that what is answered is free at once.
    """

    def __init__(self) -> None:
        self.is_connected = False
        self.was_connected = False
        self._requests: dict[RequestId, PendingRequest] = {}
        self._unsent: deque[RequestId] = deque()
        self._checks: deque[tuple[float, RequestId]] = deque()

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: PendingRequest) -> None:
        """A new request, to be sent after those that wait to be sent."""
        request_id, deadline, checks = request.id, request.deadline, self._checks
        self._requests[request_id] = request
        self._unsent.append(request_id)
        if checks and (deadline < checks[-1][0] or len(checks) > MOST_STALE_CHECKS):
            self._check_at(deadline, request_id)
        else:
            # Requests with one timeout, which is what most clients have, come in the order of their deadlines.
            checks.append((deadline, request_id))

    def connected(self) -> None:
        """There is a connection."""
        self.is_connected = self.was_connected = True

    def disconnected(self) -> list[Area]:
        """The connection is gone, and whatever was on it: every request has to be sent (again), in the old order.

        Returns:
            Areas that workers may have and that no request names any more.
        """
        self.is_connected = False
        lost: list[Area] = []
        for request in self._requests.values():
            if request.is_sent and request.placement is not None:
                if request.placement.area is not None:
                    lost.append(request.placement.area)
                request.placement = None
            request.is_sent = False
        self._unsent = deque(self._requests)
        return lost

    def next_to_send(self) -> PendingRequest | None:
        """The first request that is to be sent now, None when there is no connection or nothing to send."""
        if not self.is_connected:
            return None
        self._drop_stale()
        return self._requests[self._unsent[0]] if self._unsent else None

    @property
    def has_more_to_send(self) -> bool:
        """Whether `next_to_send` may not be the only one."""
        return len(self._unsent) > 1

    def first_to_send(self, most: int) -> list[PendingRequest]:
        """The first requests that are to be sent now, none without a connection."""
        found: list[PendingRequest] = []
        if self.next_to_send() is not None:
            for request in map(self._requests.get, islice(self._unsent, most)):
                if request is None:
                    break
                found.append(request)
        return found

    def sent(self, count: int = 1) -> None:
        """So many of the requests named by `next_to_send` or `first_to_send` went out."""
        requests, take = self._requests, self._unsent.popleft
        for _ in range(count):
            request = requests[take()]
            request.is_sent = True
            request.send_count += 1

    def to_be_sent_in_frames(self, request: PendingRequest) -> None:
        """An answered request that was not taken because of where its tensors are: it begins anew, without a place."""
        request.placement = None
        request.is_sent = False
        request.send_count = 0
        self.add(request)

    def oldest_sent(self) -> PendingRequest | None:
        """The request that has been out on the present connection for longest."""
        return next((request for request in self._requests.values() if request.is_sent), None)

    def answered(self, request_id: RequestId) -> PendingRequest | None:
        """The request that this answer belongs to; None for a second answer, or one that nobody waits for any more."""
        return self._requests.pop(request_id, None)

    def not_answered(self, request: PendingRequest) -> None:
        """The answer that `answered` was asked for does not count: the request goes on as it was."""
        self._requests[request.id] = request

    def abandon(self, request_id: RequestId) -> PendingRequest | None:
        """Nobody waits for this request any more; its answer will be dropped."""
        return self._requests.pop(request_id, None)

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
            _, request_id = self._checks.popleft()
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
        checks, requests = self._checks, self._requests
        while checks and checks[0][1] not in requests:
            checks.popleft()
        return checks[0][0] if checks else None

    def _verdict(self, request: PendingRequest) -> Verdict:
        if not self.is_connected:
            return Verdict.DISCONNECTED if self.was_connected else Verdict.NEVER_CONNECTED
        return Verdict.NOT_ANSWERED if request.is_sent else Verdict.NOT_TAKEN

    def _check_at(self, at: float, request_id: RequestId) -> None:
        checks = self._checks
        # Checks of answered requests stay behind the first one that is not: they must not pile up behind long timeouts.
        if len(checks) > 2 * len(self._requests) + MOST_STALE_CHECKS:
            checks = self._checks = deque(check for check in checks if check[1] in self._requests)
        if not checks or checks[-1][0] <= at:
            checks.append((at, request_id))
        else:
            insort(checks, (at, request_id))

    def _drop_stale(self) -> None:
        while self._unsent and self._unsent[0] not in self._requests:
            self._unsent.popleft()
