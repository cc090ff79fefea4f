"""Messages of the daemon as outcomes of calls. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from trtd.client.values import Answer, Health, Tensor, Timing
from trtd.core.ids import REQUEST_ID_BYTES, RequestId
from trtd.errors import TrtdError, error_from_wire
from trtd.wire import codec, tensors
from trtd.wire.messages import (
    Dtype,
    ErrorAnswer,
    HealthAnswer,
    InferAnswer,
    ModelDescription,
    RouterMessage,
)

Outcome = Answer | tuple[ModelDescription, ...] | Health | TrtdError
"""How a request ended."""

TimingUs = tuple[int, int, int]
"""Queue, batch and compute, in microseconds."""

_MICRO = 1e-6
_TIMING_KEY = b"\xa6timing"
_MOST_KNOWN = 256


class Reading(NamedTuple):
    """A header that was read.

    Attributes:
        id: of the request that it answers.
        message: what it says; of a result, id and timing may be those of an earlier one.
        timing_us: of a result; zeros otherwise.
    """

    id: RequestId
    message: RouterMessage
    timing_us: TimingUs


class AnswerReader:
    """Reads headers of answers, those of results by what it knows of the last ones.

    Results of one worker for inputs of one shape differ in the id and in the timing, which the daemon writes last. A
    header whose other bytes were decoded before has the same meaning, because msgpack is read from left to right.
    """

    def __init__(self) -> None:
        self._id_at = 0
        self._before_id = b""
        self._known: dict[bytes, InferAnswer] = {}

    def read(self, frames: Sequence[Any]) -> Reading:
        """The header of an answer; its tensors are read by `outcome`.

        Raises:
            trtd.errors.TrtdError: it cannot be read.
        """
        header: bytes = frames[0].bytes
        id_at = self._id_at
        id_end = id_at + REQUEST_ID_BYTES
        timing_at = header.rfind(_TIMING_KEY) + len(_TIMING_KEY)
        known = self._known.get(header[id_end:timing_at])
        if known is not None and header[:id_at] == self._before_id:
            timing_us = _read_timing(header[timing_at:])
            if timing_us is not None:
                return Reading(RequestId(header[id_at:id_end]), known, timing_us)
        message = codec.decode_router_message(header, [frame.buffer for frame in frames[1:2]])
        if not isinstance(message, InferAnswer):
            return Reading(message.id, message, (0, 0, 0))
        timing = message.timing
        timing_us = (timing.queue_us, timing.batch_us, timing.compute_us)
        if _read_timing(header[timing_at:]) == timing_us:
            self._learn(header, message, timing_at)
        return Reading(message.id, message, timing_us)

    def _learn(self, header: bytes, message: InferAnswer, timing_at: int) -> None:
        id_at = header.find(message.id)
        if header[:id_at] != self._before_id or len(self._known) >= _MOST_KNOWN:
            self._known.clear()
            self._id_at, self._before_id = id_at, header[:id_at]
        self._known[header[id_at + REQUEST_ID_BYTES : timing_at]] = message


def _read_timing(data: bytes) -> TimingUs | None:
    """Timing, where that is all that the bytes hold; the codec judges everything else."""
    try:
        queue_us, batch_us, compute_us = msgpack.unpackb(data, use_list=False, max_array_len=3)
    except (ValueError, TypeError):
        return None
    if type(queue_us) is type(batch_us) is type(compute_us) is int and min(queue_us, batch_us, compute_us) >= 0:
        return queue_us, batch_us, compute_us
    return None


def outcome(reading: Reading, frames: Sequence[Any], total_s: float) -> Outcome:
    """What an answer means to its caller.

    Raises:
        trtd.errors.Malformed: its tensor frames do not fit its header.
    """
    message = reading.message
    if isinstance(message, InferAnswer):
        if len(frames) != len(message.outputs) + 1:
            tensors.check_frames(message.outputs, [frame.buffer for frame in frames[1:]])
        outputs: dict[str, Tensor] = {}
        for position, spec in enumerate(message.outputs, start=1):
            array = tensors.from_frame(spec, frames[position].buffer)
            outputs[spec.name] = tensors.BFloat16(array) if spec.dtype is Dtype.BFLOAT16 else array
        queue_us, batch_us, compute_us = reading.timing_us
        timing = Timing(queue_us * _MICRO, batch_us * _MICRO, compute_us * _MICRO, total_s)
        return Answer(outputs, message.model, message.version, message.generation, timing)
    if isinstance(message, ErrorAnswer):
        return error_from_wire(message.code, message.message, message.retry_after_s)
    if isinstance(message, HealthAnswer):
        return Health(message.is_ready, message.state, message.reason, message.daemon_version)
    return message.models
