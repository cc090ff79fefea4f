"""What a client's message means: a request for the dispatcher, a question that the router answers itself, or an error.

Whatever cannot be taken is answered with a typed error, under the id where one could be read. Answers leave through the
tenant's `trtd.router.endpoints.Endpoint`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NoReturn, cast

import trtd
from trtd.core.admission import allowed_timeout_s
from trtd.core.dispatch import Dispatcher, Request
from trtd.core.ids import RequestId, TenantName
from trtd.core.tenancy import Gate, Tenant
from trtd.errors import ErrorCode, Malformed, NotAllowed, TooLarge, TrtdError, Unavailable, UnknownModel
from trtd.router.access import Access
from trtd.router.callers import Caller, Habit
from trtd.router.endpoints import Endpoint
from trtd.router.guests import MAX_BODY_FRAMES, Received
from trtd.router.places import resolve, tensor_pieces
from trtd.wire.arenas import REF_BYTES
from trtd.wire.bundles import BUNDLE_HEADER, unpack_bundle
from trtd.wire.codec import (
    check_frames,
    decode_client_message,
    encode_models,
    encode_router_message,
    read_request_id,
)
from trtd.wire.memo import AFTER_ID, BEFORE_ID, ID, HeaderMemo, split_header
from trtd.wire.messages import (
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    UNKNOWN_REQUEST_ID,
    WIRE_VERSION,
    DescribeAnswer,
    DescribeRequest,
    ErrorAnswer,
    HealthAnswer,
    InferRequest,
    ModelDescription,
)

MAX_HABIT_BYTES = 4096
"""Longer headers are not kept for each connection."""

ModelsOf = Callable[[TenantName], Iterable[ModelDescription]]


class Intake:
    """Takes the messages of all tenants' clients.

    Args:
        dispatcher: decides about the requests.
        submit: takes them: the dispatcher's own, or what stands before it.
        access: says who may still use a tenant.
        models_of: what a tenant's workers said that they serve.
        has_worker: whether a worker of the tenant could be given work now.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        submit: Callable[[Request, float], None],
        access: Access,
        models_of: ModelsOf,
        has_worker: Callable[[TenantName], bool],
    ) -> None:
        self._submit = submit
        self._dispatcher = dispatcher
        self._access = access
        self._models_of = models_of
        self._has_worker = has_worker
        self._memo = HeaderMemo()

    def take(self, endpoint: Endpoint, received: Received, now: float) -> int:
        """Handle one message; how many requests are in it. Their answers come later, as effects of the dispatcher."""
        caller, header, frames, size, error = received
        if header == BUNDLE_HEADER and error is None:
            return self._take_bundle(endpoint, caller, frames, now)
        self._take(endpoint, caller, header, frames, size, error, now)
        return 1

    def _take_bundle(self, endpoint: Endpoint, caller: Caller, frames: list[Any], now: float) -> int:
        try:
            if len(frames) != 1:
                raise Malformed(f"a bundle has one frame beside its header, got {len(frames)}")
            messages = unpack_bundle(memoryview(frames[0]))
        except Malformed as problem:
            endpoint.deliver(caller.route, error_frames(UNKNOWN_REQUEST_ID, problem.code, problem.message), now)
            return 1
        caller = caller.in_bundles
        max_request_bytes = endpoint.settings.max_request_bytes
        for parts in messages:
            # Copied, so that one that waits does not keep the whole bundle.
            header, *body = map(bytes, parts)
            size = sum(map(len, parts))
            error = None
            if size > max_request_bytes or len(header) > MAX_HEADER_BYTES or len(body) > MAX_BODY_FRAMES:
                error = refuse_bundled(header, body, max_request_bytes)
            self._take(endpoint, caller, header, body, size, error, now)
        return len(messages)

    def _take(
        self,
        endpoint: Endpoint,
        caller: Caller,
        header: bytes,
        frames: list[Any],
        size: int,
        error: TrtdError | None,
        now: float,
    ) -> None:
        habit = caller.habit
        if (
            habit is not None
            and error is None
            and header[AFTER_ID] == habit.after_id
            and header[BEFORE_ID] == habit.before_id
            and habit.settings is endpoint.settings
            and list(map(len, frames)) == habit.frame_sizes
        ):
            request = Request(
                RequestId(header[ID]),
                habit.tenant,
                caller.owner,
                caller.route,
                (header, *frames),
                size,
                habit.priority,
                now,
                now + habit.timeout_s,
                habit.model,
                habit.is_resent,
            )
            self._submit(request, now)
            return
        try:
            if error is not None:
                raise error
            self._take_unusual(endpoint, caller, header, frames, size, now)
        except TrtdError as problem:
            request_id = read_request_id(header) if header else UNKNOWN_REQUEST_ID
            answer = error_frames(request_id, problem.code, problem.message)
            endpoint.deliver(caller.route, [b"", *answer] if caller.is_req else answer, now)

    def _take_unusual(
        self, endpoint: Endpoint, caller: Caller, header: bytes, frames: list[Any], size: int, now: float
    ) -> None:
        """Handle a message that is not like the one before it on its connection.

        Raises:
            TrtdError: it is not taken.
        """
        route, owner, settings = caller.route, caller.owner, endpoint.settings
        if caller.is_req:
            raise Malformed("a REQ socket puts an empty frame before each message; use a DEALER socket")
        if caller.is_named:
            raise Malformed("the connection has a routing id of its own; leave ZMQ_ROUTING_ID unset")
        if not self._access.is_admitted(endpoint.tenant, owner):
            raise NotAllowed(f"{owner} may not use the tenant {endpoint.tenant} any more")
        request_id, (message, frame_sizes, has_refs) = self._memo.decode(header)
        if isinstance(message, InferRequest):
            if frame_sizes != list(map(len, frames)):
                refuse_frames(message, frames)
            memory = None
            if has_refs:
                memory, beside_bytes = resolve(endpoint.arenas.book, caller.address, message, frames)
                size += beside_bytes
                if size > settings.max_request_bytes:
                    raise TooLarge(f"the request has more than {settings.max_request_bytes} bytes")
            elif len(header) <= MAX_HABIT_BYTES and split_header(header) is not None:
                caller.habit = Habit(header, frame_sizes, settings, message)
            request = Request(
                id=request_id,
                tenant=endpoint.tenant,
                owner=owner,
                route=route,
                payload=(header, *frames),
                payload_bytes=size,
                priority=message.priority,
                received_at=now,
                deadline=now + allowed_timeout_s(settings.limits, message.timeout_s),
                model=message.model,
                is_resent=message.is_resent,
                memory=memory,
            )
            self._submit(request, now)
            return
        if frames:
            raise Malformed(f"a question has no tensor frames, got {len(frames)}")
        if type(message) is DescribeRequest:
            answer = self._describe(endpoint, message)
        else:
            answer = [encode_router_message(self._health(endpoint, request_id))]
        endpoint.deliver(route, answer, now)

    def _describe(self, endpoint: Endpoint, message: DescribeRequest) -> list[bytes]:
        models = tuple(self._models_of(endpoint.tenant))
        if not models:
            raise Unavailable(f"no worker of the tenant {endpoint.tenant} has said yet what it serves")
        if message.model is not None:
            named = tuple(model for model in models if model.name == message.model)
            if not named:
                names = ", ".join(sorted({model.name for model in models}))
                raise UnknownModel(f"no model {message.model!a}; there are {names}")
            models = named
        return [encode_router_message(DescribeAnswer(message.id, models)), encode_models(models)]

    def _health(self, endpoint: Endpoint, request_id: RequestId) -> HealthAnswer:
        state, reason = health_of(self._dispatcher.tenant(endpoint.tenant), self._has_worker(endpoint.tenant))
        return HealthAnswer(request_id, state == "ready", state, reason, (WIRE_VERSION,), daemon_version())


@cache
def daemon_version() -> str:
    """The version of trtd. Slow the first time: it is read from the package's metadata."""
    return trtd.__version__


def health_of(tenant: Tenant, has_worker: bool) -> tuple[str, str]:
    """A tenant's state as `HealthAnswer` names it, and the reason where it is not ready."""
    if tenant.gate is Gate.CLOSED:
        return "draining", "the tenant finishes what it has and takes nothing new"
    if not tenant.is_available:
        return "unavailable", tenant.reason or "the tenant is not available"
    if not has_worker:
        return "waiting", "no worker is ready at the moment; requests are queued"
    return "ready", ""


def error_frames(
    request_id: RequestId, code: ErrorCode, message: str, retry_after_s: float | None = None
) -> list[bytes]:
    """The frames of a typed error."""
    return [encode_router_message(ErrorAnswer(request_id, code, message, retry_after_s))]


def refuse_frames(message: InferRequest, frames: Sequence[Any]) -> NoReturn:
    """Say what is wrong with frames that are not those of their header.

    Raises:
        Malformed: always.
    """
    check_frames(message.inputs, frames[: len(message.inputs)] if message.has_area else frames)
    raise Malformed(f"the area of {len(message.inputs)} tensors is one more frame of {REF_BYTES} bytes")


def refuse_bundled(header: bytes, frames: Sequence[Any], max_request_bytes: int) -> TrtdError:
    """What is wrong with the sizes of a message in a bundle; of others that is found while they are read."""
    if len(header) > MAX_HEADER_BYTES:
        return Malformed(f"the header has {len(header)} bytes, the most is {MAX_HEADER_BYTES}")
    if len(frames) > MAX_BODY_FRAMES:
        return Malformed(f"the message has more than {MAX_TENSORS} tensor frames")
    return TooLarge(f"the message has more than {max_request_bytes} bytes")


def fingerprint(request: Request) -> bytes:
    """The same for two requests that ask the same model the same thing, whatever their ids and deadlines are.

    Nor does it matter whether their tensors are in frames or in shared memory.
    """
    message = cast("InferRequest", decode_client_message(request.payload[0]))
    tensors = [(spec.name, spec.dtype, spec.shape) for spec in message.inputs]
    asked = (message.model, message.version, tensors, message.outputs)
    digest = hashlib.blake2b(repr(asked).encode(), digest_size=16)
    for piece in tensor_pieces(request, message):
        digest.update(piece)
    return digest.digest()
