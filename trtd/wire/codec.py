"""The exact bytes of wire protocol v1: msgpack header frames, strictly limited, beside raw tensor frames.

Encoding and decoding of headers only; arrays are turned into frames and back by `trtd.wire.tensors`, frames are
compared with their specs by `trtd.wire.frames`. The headers between router and workers are in `trtd.wire.batches`.

Decoders raise `Malformed`, `UnsupportedVersion` or `UnsupportedDtype` with one line that names the key, and nothing
else. A key that is unknown is refused in a request (the daemon would silently do less than was asked) and ignored in
an answer (an older client reads a newer daemon).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trtd.core.ids import REQUEST_ID_BYTES, RequestId
from trtd.errors import Malformed, TrtdError
from trtd.wire import headers
from trtd.wire.descriptions import decode_models as decode_models
from trtd.wire.descriptions import encode_models as encode_models
from trtd.wire.frames import check_frames as check_frames
from trtd.wire.messages import (
    UNKNOWN_REQUEST_ID,
    WIRE_VERSION,
    ClientMessage,
    DescribeAnswer,
    DescribeRequest,
    ErrorAnswer,
    HealthAnswer,
    HealthRequest,
    InferAnswer,
    InferRequest,
    RouterMessage,
    Timing,
)
from trtd.wire.specs import decode_names, decode_specs, encode_specs

MIN_PRIORITY = -8
MAX_PRIORITY = 7

_INFER_KEYS = frozenset(
    {"v", "type", "id", "model", "version", "inputs", "outputs", "timeout_s", "priority", "is_resent", "has_area"}
)
_DESCRIBE_KEYS = frozenset({"v", "type", "id", "model"})
_HEALTH_KEYS = frozenset({"v", "type", "id"})
_TIMING_ITEMS = 3


def encode_client_message(message: ClientMessage) -> bytes:
    """The header frame of a client's message.

    Values are taken as they are and checked by the daemon, so that there is one place where the rules are.

    Raises:
        Malformed: a value cannot be written at all.
        TooLarge: the header would break its limit.
    """
    fields: headers.Fields
    if isinstance(message, InferRequest):
        fields = {"v": WIRE_VERSION, "type": "infer", "id": message.id, "model": message.model}
        if message.version is not None:
            fields["version"] = message.version
        fields["inputs"] = encode_specs(message.inputs)
        if message.outputs is not None:
            fields["outputs"] = message.outputs
        if message.timeout_s is not None:
            fields["timeout_s"] = message.timeout_s
        if message.priority:
            fields["priority"] = message.priority
        if message.is_resent:
            fields["is_resent"] = True
        if message.has_area:
            fields["has_area"] = True
    elif isinstance(message, DescribeRequest):
        fields = {"v": WIRE_VERSION, "type": "describe", "id": message.id}
        if message.model is not None:
            fields["model"] = message.model
    else:
        fields = {"v": WIRE_VERSION, "type": "health", "id": message.id}
    return headers.pack_header(fields)


def decode_client_message(header: bytes | memoryview) -> ClientMessage:
    """A client's message from its header frame. Its tensor frames are for `check_frames`.

    Raises:
        Malformed, UnsupportedVersion, UnsupportedDtype: see above.
    """
    fields = headers.unpack_header(header)
    kind = fields.get("type")
    if kind == "infer":
        return _decode_infer_request(fields)
    if kind == "describe":
        _check_keys(fields, _DESCRIBE_KEYS, "a describe request")
        model = headers.name(fields, "model") if "model" in fields else None
        return DescribeRequest(headers.request_id(fields), model)
    if kind == "health":
        _check_keys(fields, _HEALTH_KEYS, "a health request")
        return HealthRequest(headers.request_id(fields))
    raise _wrong_type(fields, "infer, describe, health")


def _decode_infer_request(fields: headers.Fields) -> InferRequest:
    _check_keys(fields, _INFER_KEYS, "an infer request")
    priority = fields.get("priority", 0)
    if type(priority) is not int or not MIN_PRIORITY <= priority <= MAX_PRIORITY:
        raise headers.wrong(fields, "priority", f"an integer from {MIN_PRIORITY} to {MAX_PRIORITY}")
    return InferRequest(
        headers.request_id(fields),
        headers.name(fields, "model"),
        headers.name(fields, "version") if "version" in fields else None,
        decode_specs(fields, "inputs"),
        headers.timeout(fields, "timeout_s") if "timeout_s" in fields else None,
        priority,
        headers.boolean(fields, "is_resent") if "is_resent" in fields else False,
        headers.boolean(fields, "has_area") if "has_area" in fields else False,
        decode_names(fields, "outputs") if "outputs" in fields else None,
    )


def read_request_id(header: bytes | memoryview) -> RequestId:
    """The id in a header that may be malformed otherwise, for the error that answers it; zeros where there is none."""
    try:
        fields = headers.unpack(header, "the header")
    except TrtdError:
        return UNKNOWN_REQUEST_ID
    value = fields.get("id") if type(fields) is dict else None
    if type(value) is bytes and len(value) == REQUEST_ID_BYTES:
        return RequestId(value)
    return UNKNOWN_REQUEST_ID


def encode_router_message(message: RouterMessage) -> bytes:
    """The header frame of an answer. `encode_models` gives the second frame of a `DescribeAnswer`.

    The text of an error or of a health answer is cut and made one line, so that an error can always be sent.

    Raises:
        Malformed: a value cannot be written at all.
        TooLarge: the header of a result would break its limit.
    """
    fields: headers.Fields
    if isinstance(message, InferAnswer):
        timing = message.timing
        fields = {
            "v": WIRE_VERSION,
            "type": "result",
            "id": message.id,
            "model": message.model,
            "version": message.version,
            "generation": message.generation,
            "outputs": encode_specs(message.outputs),
            "timing": (timing.queue_us, timing.batch_us, timing.compute_us),
        }
    elif isinstance(message, ErrorAnswer):
        fields = {
            "v": WIRE_VERSION,
            "type": "error",
            "id": message.id,
            "code": message.code,
            "message": headers.one_line(message.message),
        }
        if message.retry_after_s is not None and 0 <= message.retry_after_s < math.inf:
            fields["retry_after_s"] = message.retry_after_s
    elif isinstance(message, DescribeAnswer):
        fields = {"v": WIRE_VERSION, "type": "models", "id": message.id}
    else:
        fields = {
            "v": WIRE_VERSION,
            "type": "health",
            "id": message.id,
            "is_ready": message.is_ready,
            "state": message.state,
            "reason": headers.one_line(message.reason),
            "wire_versions": message.wire_versions,
            "daemon_version": message.daemon_version,
        }
    return headers.pack_header(fields)


def decode_router_message(header: bytes | memoryview, frames: Sequence[Any] = ()) -> RouterMessage:
    """An answer from its header frame and, for a `DescribeAnswer`, the frame that follows it.

    The tensor frames of a result are for `check_frames`.

    Raises:
        Malformed, UnsupportedVersion, UnsupportedDtype: see above.
    """
    fields = headers.unpack_header(header)
    kind = fields.get("type")
    if kind == "result":
        return InferAnswer(
            headers.request_id(fields),
            headers.name(fields, "model"),
            headers.name(fields, "version"),
            headers.uint(fields, "generation"),
            decode_specs(fields, "outputs"),
            _decode_timing(fields),
        )
    if kind == "error":
        return ErrorAnswer(
            headers.request_id(fields),
            headers.name(fields, "code"),
            headers.text(fields, "message"),
            headers.wait(fields, "retry_after_s") if "retry_after_s" in fields else None,
        )
    if kind == "models":
        if len(frames) != 1:
            raise Malformed(f"an answer of type models has 1 frame after its header, got {len(frames)}")
        return DescribeAnswer(headers.request_id(fields), decode_models(frames[0]))
    if kind == "health":
        return HealthAnswer(
            headers.request_id(fields),
            headers.boolean(fields, "is_ready"),
            headers.name(fields, "state"),
            headers.text(fields, "reason"),
            _decode_versions(fields),
            headers.name(fields, "daemon_version"),
        )
    raise _wrong_type(fields, "result, error, models, health")


def _check_keys(fields: headers.Fields, known: frozenset[str], what: str) -> None:
    if not known.issuperset(fields):
        unknown = next(key for key in fields if key not in known)
        raise Malformed(f"{headers.show(unknown)} is no key of {what}; there are {', '.join(sorted(known))}")


def _decode_timing(fields: headers.Fields) -> Timing:
    value = headers.array(fields, "timing")
    if len(value) >= _TIMING_ITEMS:
        # A newer daemon may append to the array.
        queue_us, batch_us, compute_us = value[:_TIMING_ITEMS]
        if (
            type(queue_us) is type(batch_us) is type(compute_us) is int
            and 0 <= (queue_us | batch_us | compute_us) <= headers.MAX_UINT
        ):
            return Timing(queue_us, batch_us, compute_us)
    raise Malformed("timing: expected [queue_us, batch_us, compute_us], integers from 0 to 2**63 - 1")


def _decode_versions(fields: headers.Fields) -> tuple[int, ...]:
    versions = headers.array(fields, "wire_versions")
    if any(type(version) is not int or version < 0 for version in versions):
        raise Malformed("wire_versions: expected an array of integers")
    return versions


def _wrong_type(fields: headers.Fields, known: str) -> Malformed:
    kind = fields.get("type")
    if type(kind) is not str:
        return headers.wrong(fields, "type", f"one of {known}")
    return Malformed(f"type: {headers.show(kind)} is none of {known}")
