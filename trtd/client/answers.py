"""Calls as messages, and messages as outcomes: between what callers pass in and what `trtd.wire` defines. No I/O."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from trtd.client.values import Answer, Health, Tensor, Timing
from trtd.core.ids import REQUEST_ID_BYTES, RequestId
from trtd.errors import InvalidInput, TrtdError, UnsupportedDtype, error_from_wire
from trtd.wire import codec, tensors
from trtd.wire.messages import (
    MAX_TENSORS,
    DescribeAnswer,
    Dtype,
    ErrorAnswer,
    HealthAnswer,
    InferRequest,
    ModelDescription,
    RouterMessage,
)

Outcome = Answer | tuple[ModelDescription, ...] | Health | TrtdError
"""How a request ended."""

_MICRO = 1e-6
_COUNTER_BYTES = 8


class RequestIds:
    """Ids that no other client chooses: a random half for the client and a counter."""

    def __init__(self) -> None:
        self._prefix = os.urandom(REQUEST_ID_BYTES - _COUNTER_BYTES)
        self._count = 0

    def next(self) -> RequestId:
        """A new id."""
        self._count += 1
        return RequestId(self._prefix + self._count.to_bytes(_COUNTER_BYTES, "big"))


def check_call(timeout_s: float, priority: int = 0) -> None:
    """Refuse arguments that no request can have.

    Raises:
        ValueError: the timeout is not above 0 and finite, or the priority is out of range.
    """
    if not 0 < timeout_s < float("inf"):
        raise ValueError(f"timeout has to be a finite number of seconds above 0, not {timeout_s}")
    if not codec.MIN_PRIORITY <= priority <= codec.MAX_PRIORITY:
        raise ValueError(f"priority has to be from {codec.MIN_PRIORITY} to {codec.MAX_PRIORITY}, not {priority}")


def infer_message(
    request_id: RequestId,
    model: str,
    inputs: Mapping[str, Tensor],
    version: str | None,
    timeout_s: float,
    priority: int,
) -> tuple[InferRequest, list[memoryview]]:
    """The message of one `infer` call, and its tensor frames.

    Raises:
        trtd.errors.UnsupportedDtype: an input is no array, or of a dtype that does not travel.
        trtd.errors.InvalidInput: there are too many inputs.
    """
    if len(inputs) > MAX_TENSORS:
        raise InvalidInput(f"a request has at most {MAX_TENSORS} inputs, not {len(inputs)}")
    specs, frames = [], []
    for name, tensor in inputs.items():
        try:
            specs.append(tensors.spec_of(name, tensor))
            frames.append(tensors.to_frame(tensor))
        except AttributeError:
            raise UnsupportedDtype(
                f"input {name!r} is a {type(tensor).__name__}; pass a NumPy array or a BFloat16"
            ) from None
        except UnsupportedDtype as error:
            raise UnsupportedDtype(f"input {name!r}: {error.message}") from None
    return InferRequest(request_id, model, version, tuple(specs), timeout_s, priority), frames


def decode(frames: Sequence[Any]) -> RouterMessage:
    """The message in the frames of an answer; its tensors are read by `outcome`.

    Raises:
        trtd.errors.TrtdError: it cannot be read.
    """
    return codec.decode_router_message(frames[0].bytes, [frame.buffer for frame in frames[1:2]])


def outcome(message: RouterMessage, frames: Sequence[Any], total_s: float) -> Outcome:
    """What a message means to its caller.

    Raises:
        trtd.errors.Malformed: its tensor frames do not fit its header.
    """
    if isinstance(message, ErrorAnswer):
        return error_from_wire(message.code, message.message, message.retry_after_s)
    if isinstance(message, DescribeAnswer):
        return message.models
    if isinstance(message, HealthAnswer):
        return Health(message.is_ready, message.state, message.reason, message.daemon_version)
    if len(frames) != len(message.outputs) + 1:
        tensors.check_frames(message.outputs, [frame.buffer for frame in frames[1:]])
    outputs: dict[str, Tensor] = {}
    for position, spec in enumerate(message.outputs, start=1):
        array = tensors.from_frame(spec, frames[position].buffer)
        outputs[spec.name] = tensors.BFloat16(array) if spec.dtype is Dtype.BFLOAT16 else array
    spent = message.timing
    timing = Timing(spent.queue_us * _MICRO, spent.batch_us * _MICRO, spent.compute_us * _MICRO, total_s)
    return Answer(outputs, message.model, message.version, message.generation, timing)
