"""What the sync and the asyncio client share: requests go out, answers come in, over one `Transport`.

Not safe for several threads and never waits. A caller submits requests, calls `turn` when a descriptor is readable or
`next_deadline` has come, and hands every completion to its owner. How to wait, and who waits, is the clients' matter.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trtd.client import answers
from trtd.client.answers import AnswerReader, Outcome
from trtd.client.arenas import Arenas
from trtd.client.pending import PendingRequest, PendingRequests, Verdict
from trtd.client.transport import READABLE, WRITABLE, ConnectionEvent, Transport
from trtd.client.values import Answer
from trtd.core.ids import RequestId
from trtd.errors import DeadlineExceeded, ErrorCode, NotAllowed, Overloaded, TrtdError, Unreachable
from trtd.wire import codec, packing
from trtd.wire.arenas import MIN_PLACED_BYTES
from trtd.wire.bundles import (
    BUNDLE_HEADER,
    MAX_BUNDLE_BYTES,
    MAX_BUNDLED,
    MAX_BUNDLED_BYTES,
    unpack_bundle,
)
from trtd.wire.frames import payload_bytes
from trtd.wire.messages import UNKNOWN_REQUEST_ID, ErrorAnswer, Place

FRESH_S = 0.01
"""A request that leaves within this time of its call asks for all of its timeout, with a header that is ready-made."""
_BUNDLE_FRAMES = 2

Completion = tuple[Any, Outcome]
"""The handle of a request, and how the request ended."""


class Exchange:
    """The requests of one client and their answers."""

    def __init__(self, transport: Transport, arenas: Arenas) -> None:
        self.transport = transport
        self.arenas = arenas
        self._pending = PendingRequests()
        self._answers = AnswerReader()
        self._trouble: ConnectionEvent | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def submit(self, requests: Iterable[PendingRequest], now: float) -> list[Completion]:
        """Send requests as soon as there is a connection; what can leave together does.

        Returns:
            Other requests that turned out to have ended.
        """
        pending = self._pending
        completions: list[Completion] = []
        if not pending.is_connected:
            # A refusal from before this request must not be held against it.
            completions = self._follow_connection(now)
            if self._trouble is not None:
                self._trouble = None
                self.transport.reconnect()
        for request in requests:
            pending.add(request)
        if self.arenas.is_expecting:
            self.arenas.attend(now)
        self._flush(now)
        return completions

    def turn(self, now: float, *, is_connection_news: bool) -> list[Completion]:
        """Do all that can be done without waiting. Afterwards the descriptors may be waited on.

        Args:
            now: monotonic seconds.
            is_connection_news: whether the monitor's descriptor is readable.
        """
        completions = self._follow_connection(now) if is_connection_news else []
        while True:
            frames = self.transport.receive()
            if frames is not None:
                if frames[0] == BUNDLE_HEADER:
                    self._take_bundle(frames, now, completions)
                else:
                    self._take_answer(frames, now, completions)
            else:
                self._flush(now)
            # Every operation on the socket may use up the edge of its descriptor, so its readiness is what counts.
            # With nothing pending nobody will wait, and the next call asks `has_work` first.
            if not self._pending or not self.has_work():
                break
        for request, verdict in self._pending.expire(now):
            self._retire_area(request)
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
        request = self._pending.abandon(request_id)
        if request is not None:
            self._retire_area(request)

    def close(self) -> list[Completion]:
        """Close the connection; whatever was pending ends as `Unreachable`."""
        self.transport.close()
        self.arenas.close()
        error = "this client was closed before the answer came"
        return [(request.handle, Unreachable(error)) for request in self._pending.abandon_all()]

    def _follow_connection(self, now: float) -> list[Completion]:
        events = self.transport.connection_events()
        for event in events:
            if event is ConnectionEvent.CONNECTED:
                self._pending.connected()
                self.arenas.connected(now)
                self._trouble = None
            elif event is ConnectionEvent.DISCONNECTED:
                for area in self._pending.disconnected():
                    self.arenas.retire(area.region)
                self.arenas.disconnected()
            else:
                self._trouble = event
        trouble = self._trouble
        if trouble in events and trouble in (ConnectionEvent.NOT_ALLOWED, ConnectionEvent.TOO_MANY):
            return [(request.handle, self._refused(trouble)) for request in self._pending.abandon_all()]
        return []

    def _flush(self, now: float) -> None:
        pending = self._pending
        while (request := pending.next_to_send()) is not None:
            if self.arenas.has_bundles and pending.has_more_to_send:
                count, bundle = self._gather(now)
                if count > 1:
                    if not self.transport.send(BUNDLE_HEADER, (bundle,)):
                        return
                    pending.sent(count)
                    continue
            header, frames = self._message_of(request, now)
            if not self.transport.send(header, frames):
                return
            pending.sent()

    def _gather(self, now: float) -> tuple[int, bytes]:
        """How many of the first requests fit into one bundle, and the bundle; 0 or 1 when the first does not."""
        parts: list[Any] = []
        count = 0
        room = MAX_BUNDLE_BYTES
        fresh_since = now - FRESH_S
        for request in self._pending.first_to_send(MAX_BUNDLED):
            form = request.form
            is_ready_made = request.placement is None and not request.send_count and request.submitted_at >= fresh_since
            if is_ready_made:
                size = form.packed_bytes
            else:
                header, frames = self._message_of(request, now)
                packed, size = packing.pack_sized([header, *frames])
            room -= size
            if size > MAX_BUNDLED_BYTES or room < 0:
                break
            if is_ready_made:
                form.pack(request.id, request.tensors, parts)
            else:
                parts += packed
            count += 1
        return count, b"".join(parts) if count > 1 else b""

    def _message_of(self, request: PendingRequest, now: float) -> tuple[bytes, Sequence[Any]]:
        """What is sent of the request now: its header, and the frames that follow it."""
        placement = request.placement
        if placement is not None and (placement.epoch != self.arenas.epoch or request.send_count):
            placement = request.placement = None
        form, frames = (request.form, request.tensors) if placement is None else (placement.form, placement.frames)
        if request.send_count == 0 and now - request.submitted_at <= FRESH_S:
            header = form.header(request.id)
        else:
            header = codec.encode_client_message(request.message_at(now, form))
        return header, frames

    def _take_bundle(self, frames: Sequence[Any], now: float, completions: list[Completion]) -> None:
        if len(frames) != _BUNDLE_FRAMES:
            return
        try:
            messages = unpack_bundle(frames[1])
        except TrtdError:
            # As with a message without an id: the requests' own deadlines are kept.
            return
        for message in messages:
            self._take_answer(message, now, completions)

    def _take_answer(self, frames: Sequence[Any], now: float, completions: list[Completion]) -> None:
        try:
            reading = self._answers.read(frames)
        except TrtdError as error:
            # Where not even the id can be read it is nobody's answer; the request's own deadline is kept.
            request = self._pending.answered(codec.read_request_id(bytes(frames[0])))
            if request is not None:
                self._retire_area(request)
                completions.append((request.handle, error))
            return
        request_id, _, timing_us, result = reading
        request = self._pending.answered(request_id)
        if request is None and request_id == UNKNOWN_REQUEST_ID:
            # The daemon could not read one of our requests, as when it speaks another version; then it can read none,
            # and each is answered so.
            oldest = self._pending.oldest_sent()
            request = None if oldest is None else self._pending.answered(oldest.id)
        if request is None:
            return
        placement = request.placement
        if result is not None and placement is None and result.is_plain:
            # The usual case in few steps; what follows would do the same.
            outputs = frames[1:]
            if list(map(len, outputs)) == result.frame_sizes:
                answer = Answer(result, outputs, timing_us, now - request.submitted_at)
                completions.append((request.handle, answer))
                return
        if placement is None and request.send_count > 1 and _says_arena_unknown(reading):
            # It answers the first sending, which went to a new router before this side learned of it.
            self._pending.not_answered(request)
            return
        try:
            area = None if placement is None else placement.area
            outcome = answers.outcome(reading, frames, now - request.submitted_at, area)
        except TrtdError as error:
            self._retire_area(request)
            completions.append((request.handle, error))
            return
        if result is not None:
            request.form.outputs.learn(result.message.outputs)
        if placement is not None:
            code = outcome.code if isinstance(outcome, TrtdError) else None
            if not request.is_area_free_after(code) or _was_withheld(reading):
                self._retire_area(request)
            if code is ErrorCode.ARENA_UNKNOWN:
                self.arenas.disown(placement.keys, now)
                self._pending.to_be_sent_in_frames(request)
                return
        completions.append((request.handle, outcome))

    def _retire_area(self, request: PendingRequest) -> None:
        placement = request.placement
        if placement is not None and placement.area is not None and request.send_count:
            self.arenas.retire(placement.area.region)

    def _refused(self, trouble: ConnectionEvent | None) -> TrtdError:
        if trouble is ConnectionEvent.TOO_MANY:
            return Overloaded(f"{trouble.value} at {self.transport.address}", retry_after_s=1.0)
        return NotAllowed(f"the daemon refused this user or key at {self.transport.address}")

    def _give_up(self, request: PendingRequest, verdict: Verdict) -> TrtdError:
        address, timeout_s = self.transport.address, request.deadline - request.submitted_at
        if verdict is Verdict.NOT_ANSWERED:
            return DeadlineExceeded(
                f"the daemon at {address} did not answer within {timeout_s:.3g} s, "
                f"nor in {request.gives_up_at - request.deadline:.3g} s after that"
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


def _says_arena_unknown(reading: answers.Reading) -> bool:
    _, message, _, _ = reading
    return isinstance(message, ErrorAnswer) and message.code == ErrorCode.ARENA_UNKNOWN


def _was_withheld(reading: answers.Reading) -> bool:
    """Whether a worker had no area for outputs that belong into one: another worker may still write into it."""
    *_, result = reading
    if result is None:
        return False
    outputs = result.message.outputs
    return all(spec.place is Place.FRAME for spec in outputs) and any(
        payload_bytes(spec) >= MIN_PLACED_BYTES for spec in outputs
    )
