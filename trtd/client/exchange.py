"""What the sync and the asyncio client share: requests go out, answers come in, over one `Transport`.

Not safe for several threads and never waits. A caller submits requests, calls `turn` when a descriptor is readable or
`next_deadline` has come, and hands every completion to its owner. How to wait, and who waits, is the clients' matter.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trtd.client import answers
from trtd.client.answers import AnswerReader, Outcome
from trtd.client.calls import Form
from trtd.client.pending import PendingRequest, PendingRequests, Verdict
from trtd.client.transport import READABLE, WRITABLE, ConnectionEvent, Transport
from trtd.core.ids import RequestId
from trtd.errors import DeadlineExceeded, NotAllowed, TrtdError, Unreachable
from trtd.wire import codec
from trtd.wire.messages import UNKNOWN_REQUEST_ID

GRACE_S = 1.0
"""How long after a deadline the client still waits for the daemon's own word on it."""

Completion = tuple[Any, Outcome]
"""The handle of a request, and how the request ended."""


class Exchange:
    """The requests of one client and their answers."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._pending = PendingRequests()
        self._answers = AnswerReader()
        self._trouble: ConnectionEvent | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def submit(
        self, request_id: RequestId, form: Form, tensors: Sequence[Any], timeout_s: float, handle: Any, now: float
    ) -> list[Completion]:
        """Send a request as soon as there is a connection.

        Returns:
            Other requests that turned out to have ended.
        """
        pending = self._pending
        completions: list[Completion] = []
        if not pending.is_connected:
            # A refusal from before this request must not be held against it.
            completions = self._follow_connection()
            if self._trouble is not None:
                self._trouble = None
                self.transport.reconnect()
        deadline = now + timeout_s
        request = PendingRequest(request_id, form, tensors, now, deadline, deadline + GRACE_S, handle)
        pending.add(request)
        first = pending.next_to_send()
        if first is request:
            if self.transport.send(form.header(request_id), tensors):
                pending.sent()
        elif first is not None:
            self._flush(now)
        return completions

    def turn(self, now: float, *, is_connection_news: bool) -> list[Completion]:
        """Do all that can be done without waiting. Afterwards the descriptors may be waited on.

        Args:
            now: monotonic seconds.
            is_connection_news: whether the monitor's descriptor is readable.
        """
        completions = self._follow_connection() if is_connection_news else []
        while True:
            frames = self.transport.receive()
            if frames is not None:
                self._take_answer(frames, now, completions)
            else:
                self._flush(now)
            # Every operation on the socket may use up the edge of its descriptor, so its readiness is what counts.
            # With nothing pending nobody will wait, and the next call asks `has_work` first.
            if not self._pending or not self.has_work():
                break
        for request, verdict in self._pending.expire(now):
            completions.append((request.handle, self._give_up(request, verdict)))
        return completions

    def has_work(self) -> bool:
        """Whether `turn` can do something; to be asked after `submit` and before the descriptors are waited on."""
        readiness = self.transport.readiness()
        return bool(readiness & READABLE or (readiness & WRITABLE and self._pending.next_to_send() is not None))

    def next_deadline(self) -> float | None:
        """When `turn` is to be called though nothing came."""
        return self._pending.next_deadline()

    def abandon(self, request_id: RequestId) -> None:
        """Drop the answer to this request when it comes."""
        self._pending.abandon(request_id)

    def close(self) -> list[Completion]:
        """Close the connection; whatever was pending ends as `Unreachable`."""
        self.transport.close()
        error = "this client was closed before the answer came"
        return [(request.handle, Unreachable(error)) for request in self._pending.abandon_all()]

    def _follow_connection(self) -> list[Completion]:
        events = self.transport.connection_events()
        for event in events:
            if event is ConnectionEvent.CONNECTED:
                self._pending.connected()
                self._trouble = None
            elif event is ConnectionEvent.DISCONNECTED:
                self._pending.disconnected()
            else:
                self._trouble = event
        if ConnectionEvent.NOT_ALLOWED in events and self._trouble is ConnectionEvent.NOT_ALLOWED:
            return [(request.handle, self._refused()) for request in self._pending.abandon_all()]
        return []

    def _flush(self, now: float) -> None:
        while (request := self._pending.next_to_send()) is not None:
            if not self.transport.send(codec.encode_client_message(request.message_at(now)), request.tensors):
                return
            self._pending.sent()

    def _take_answer(self, frames: Sequence[Any], now: float, completions: list[Completion]) -> None:
        try:
            reading = self._answers.read(frames)
        except TrtdError:
            # Not even the id can be read, so it is nobody's answer; the request's own deadline is kept.
            return
        request_id = reading.id
        if request_id == UNKNOWN_REQUEST_ID:
            # The daemon could not read one of our requests, as when it speaks another version; then it can read none,
            # and each is answered so.
            oldest = self._pending.oldest_sent()
            request_id = oldest.id if oldest is not None else request_id
        request = self._pending.answered(request_id)
        if request is None:
            return
        try:
            outcome = answers.outcome(reading, frames, now - request.submitted_at)
        except TrtdError as error:
            outcome = error
        completions.append((request.handle, outcome))

    def _refused(self) -> TrtdError:
        return NotAllowed(f"the daemon refused this user or key at {self.transport.address}")

    def _give_up(self, request: PendingRequest, verdict: Verdict) -> TrtdError:
        address, timeout_s = self.transport.address, request.deadline - request.submitted_at
        if verdict is Verdict.NOT_ANSWERED:
            return DeadlineExceeded(
                f"the daemon at {address} did not answer within {timeout_s:.3g} s, nor in {GRACE_S:g} s after that"
            )
        if verdict is Verdict.NOT_TAKEN:
            return DeadlineExceeded(f"the daemon at {address} took no further request within {timeout_s:.3g} s")
        if verdict is Verdict.DISCONNECTED:
            return Unreachable(f"the connection to {address} was lost and no daemon came back within {timeout_s:.3g} s")
        path = address.removeprefix("ipc://")
        if path != address and Path(path).exists() and not os.access(path, os.W_OK):
            return NotAllowed(f"the permissions of {path} keep this user out")
        return Unreachable(f"no daemon answered at {address} within {timeout_s:.3g} s{self._why_absent(path)}")

    def _why_absent(self, path: str) -> str:
        if self._trouble is not None:
            return f": {self._trouble.value}"
        if path == self.transport.address:
            return ""
        return ": nobody listens on that socket" if Path(path).exists() else ": there is no socket at that path"
