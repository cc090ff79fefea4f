"""Messages of the daemon as outcomes of calls. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack
import numpy as np

from trtd.client.values import Answer, Health, Tensor
from trtd.core.ids import REQUEST_ID_BYTES, RequestId
from trtd.errors import Malformed, TrtdError, error_from_wire
from trtd.wire import codec, tensors
from trtd.wire.arenas import ArenaRef, decode_ref
from trtd.wire.frames import payload_bytes, travelling_bytes
from trtd.wire.messages import (
    DescribeAnswer,
    Dtype,
    ErrorAnswer,
    HealthAnswer,
    InferAnswer,
    ModelDescription,
    Place,
    RouterMessage,
)

Outcome = Answer | tuple[ModelDescription, ...] | Health | TrtdError
"""How a request ended."""

TimingUs = tuple[int, int, int]
"""Queue, batch and compute, in microseconds."""

_TIMING_KEY = b"\xa6timing"
_MOST_KNOWN = 256


class Reading(NamedTuple):
    """A header that was read.

    Attributes:
        id: of the request that it answers.
        message: what it says; of a result, id and timing may be those of an earlier one.
        timing_us: of a result; zeros otherwise.
        result: what follows from the header of a result, None for every other message.
    """

    id: RequestId
    message: RouterMessage
    timing_us: TimingUs
    result: ResultHeader | None = None


class ResultHeader:
    """What all results with the same outputs have in common.

    Attributes:
        message: one of them.
        frame_sizes: of the tensor frames that have to follow.
        has_refs: whether an output lies in an arena.
    """

    __slots__ = ("_is_checked", "frame_sizes", "has_refs", "message")

    def __init__(self, message: InferAnswer) -> None:
        self.message = message
        self.frame_sizes = [travelling_bytes(spec) for spec in message.outputs]
        self.has_refs = any(spec.place is Place.ARENA for spec in message.outputs)
        self._is_checked = any(spec.dtype is Dtype.BOOL for spec in message.outputs)

    def check(self, frames: Sequence[Any], area: Area | None) -> None:
        """Refuse frames that are not those of the outputs, and places outside of the area.

        Raises:
            trtd.errors.Malformed: see above.
        """
        # Frames are bytes, or memoryviews of single bytes.
        if list(map(len, frames)) != self.frame_sizes:
            tensors.check_frames(self.message.outputs, frames)
        if self.has_refs:
            self._check_refs(frames, area)
        if self._is_checked:
            self.outputs_of(frames, None if area is None else area.region)

    def outputs_of(self, frames: Sequence[Any], region: Any) -> dict[str, Tensor]:
        """The arrays in the frames and in the region.

        Raises:
            trtd.errors.Malformed: a bool is neither 0 nor 1.
        """
        outputs: dict[str, Tensor] = {}
        memory: np.ndarray[Any, Any] | None = None
        if self.has_refs:
            memory = region.array()
            memory.flags.writeable = False
        for spec, frame in zip(self.message.outputs, frames, strict=True):
            data = frame
            if spec.place is Place.ARENA and memory is not None:
                _, offset, size_bytes = decode_ref(frame)
                data = memory[offset - region.offset : offset - region.offset + size_bytes]
            array = tensors.from_frame(spec, data)
            outputs[spec.name] = tensors.BFloat16(array) if spec.dtype is Dtype.BFLOAT16 else array
        return outputs

    def _check_refs(self, frames: Sequence[Any], area: Area | None) -> None:
        for spec, frame in zip(self.message.outputs, frames, strict=True):
            if spec.place is not Place.ARENA:
                continue
            ref = decode_ref(frame)
            if area is None or ref.size_bytes != payload_bytes(spec) or not area.holds(ref):
                raise Malformed(f"tensor {spec.name!a}: the answer says that it lies outside of the area given for it")


class Area(NamedTuple):
    """Where the outputs of one request may have been written.

    Attributes:
        ref: as the request named it.
        region: the memory.
    """

    ref: ArenaRef
    region: Any

    def holds(self, ref: ArenaRef) -> bool:
        """Whether all of that place is in the area."""
        key, offset, size_bytes = self.ref
        return ref.key == key and offset <= ref.offset and ref.offset + ref.size_bytes <= offset + size_bytes


class AnswerReader:
    """Reads headers of answers, those of results by what it knows of the last ones.

    Results of one worker for inputs of one shape differ in the id and in the timing, which the daemon writes last. A
    header whose other bytes were decoded before has the same meaning, because msgpack is read from left to right.
    """

    def __init__(self) -> None:
        self._id_at = 0
        self._before_id = b""
        self._known: dict[bytes, ResultHeader] = {}

    def read(self, frames: Sequence[Any]) -> Reading:
        """The header of an answer; its tensors are read by `outcome`.

        Args:
            frames: buffers, the header first.

        Raises:
            trtd.errors.TrtdError: it cannot be read.
        """
        header = frames[0]
        if type(header) is not bytes:
            header = bytes(header)
        id_at = self._id_at
        id_end = id_at + REQUEST_ID_BYTES
        timing_at = header.rfind(_TIMING_KEY) + len(_TIMING_KEY)
        known = self._known.get(header[id_end:timing_at])
        if known is not None and header[:id_at] == self._before_id:
            timing_us = _read_timing(header[timing_at:])
            if timing_us is not None:
                return Reading(RequestId(header[id_at:id_end]), known.message, timing_us, known)
        message = codec.decode_router_message(header, frames[1:2])
        if not isinstance(message, InferAnswer):
            return Reading(message.id, message, (0, 0, 0))
        timing = message.timing
        timing_us = (timing.queue_us, timing.batch_us, timing.compute_us)
        result = ResultHeader(message)
        if _read_timing(header[timing_at:]) == timing_us:
            self._learn(header, result, timing_at)
        return Reading(message.id, message, timing_us, result)

    def _learn(self, header: bytes, result: ResultHeader, timing_at: int) -> None:
        id_at = header.find(result.message.id)
        if header[:id_at] != self._before_id or len(self._known) >= _MOST_KNOWN:
            self._known.clear()
            self._id_at, self._before_id = id_at, header[:id_at]
        self._known[header[id_at + REQUEST_ID_BYTES : timing_at]] = result


def _read_timing(data: bytes) -> TimingUs | None:
    """Timing, where that is all that the bytes hold; the codec judges everything else."""
    try:
        queue_us, batch_us, compute_us = msgpack.unpackb(data, use_list=False, max_array_len=3)
    except (ValueError, TypeError):
        return None
    if type(queue_us) is type(batch_us) is type(compute_us) is int and min(queue_us, batch_us, compute_us) >= 0:
        return queue_us, batch_us, compute_us
    return None


def outcome(reading: Reading, frames: Sequence[Any], total_s: float, area: Area | None = None) -> Outcome:
    """What an answer means to its caller.

    Args:
        reading: of its header.
        frames: buffers, the header first.
        total_s: from the call to the answer.
        area: where the outputs may lie.

    Raises:
        trtd.errors.Malformed: its tensor frames do not fit its header, or a place is not in the area.
    """
    result = reading.result
    if result is not None:
        outputs = frames[1:]
        result.check(outputs, area)
        region = area.region if area is not None and result.has_refs else None
        return Answer(result, outputs, reading.timing_us, total_s, region)
    message = reading.message
    if isinstance(message, ErrorAnswer):
        return error_from_wire(message.code, message.message, message.retry_after_s)
    if isinstance(message, HealthAnswer):
        return Health(message.is_ready, message.state, message.reason, message.daemon_version)
    assert isinstance(message, DescribeAnswer)  # noqa: S101  # the only kind that is left
    return message.models
