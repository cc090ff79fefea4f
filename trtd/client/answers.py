"""Messages of the daemon as outcomes of calls. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from trtd.client.calls import PLACED_FROM_BYTES
from trtd.client.values import Answer, Health, Tensor
from trtd.core.ids import REQUEST_ID_BYTES, RequestId
from trtd.errors import Malformed, TrtdError, error_from_wire
from trtd.wire import codec, tensors
from trtd.wire.arenas import ArenaRef, decode_ref
from trtd.wire.frames import payload_bytes, travelling_bytes
from trtd.wire.headers import MAX_UINT
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

Reading = tuple[RequestId, RouterMessage, TimingUs, "ResultHeader | None"]
"""A header that was read, as a plain tuple because each answer needs one.

The id of the request that it answers; what it says, where id and timing of a result may be those of an earlier one; the
timing of a result, zeros otherwise; what follows from the header of a result, None for every other message.
"""

_TIMING_KEY = b"\xa6timing"
_WIDE_TIMING = Struct(">HQBQBQ")
"""As `trtd.wire.forms` writes it: an array of three numbers, each at its full width."""
_WIDE_TIMING_AT = -_WIDE_TIMING.size
_ARRAY_OF_3_UINT64 = 0x93CF
_UINT64 = 0xCF
_MOST_KNOWN = 256


class ResultHeader:
    """What all results with the same outputs have in common.

    Attributes:
        message: one of them.
        frame_sizes: of the tensor frames that have to follow.
        has_refs: whether an output lies in an arena.
        is_plain: whether the sizes of its frames are all that has to be looked at: of what `check` does, and because no
            area would be large enough to be worth having.
    """

    __slots__ = ("_is_checked", "frame_sizes", "has_refs", "is_plain", "message")

    def __init__(self, message: InferAnswer) -> None:
        self.message = message
        self.frame_sizes = [travelling_bytes(spec) for spec in message.outputs]
        self.has_refs = any(spec.place is Place.ARENA for spec in message.outputs)
        self._is_checked = any(spec.dtype is Dtype.BOOL for spec in message.outputs)
        is_small = sum(self.frame_sizes) < PLACED_FROM_BYTES
        self.is_plain = is_small and not self.has_refs and not self._is_checked

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
            outputs[spec.name] = tensors.wrap(spec.dtype, array)
        return outputs

    def in_frames(self, frames: Sequence[Any], region: Any) -> tuple[InferAnswer, list[bytes]]:
        """The same answer with copies of its outputs, all in frames of their own.

        Raises:
            trtd.errors.Malformed: as `outputs_of`.
        """
        message = self.message
        outputs = tuple(replace(spec, place=Place.FRAME) for spec in message.outputs)
        copies = [bytes(tensors.to_frame(tensor)) for tensor in self.outputs_of(frames, region).values()]
        return replace(message, outputs=outputs), copies

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

    Results of one worker for inputs of one shape differ in the id and in the timing, which the worker writes last and
    at a fixed width. A header whose other bytes were decoded before has the same meaning, because msgpack is read from
    left to right.
    """

    def __init__(self) -> None:
        self._id_at = 0
        self._id_end = REQUEST_ID_BYTES
        self._before_id = b""
        self._known: dict[bytes, ResultHeader] = {}

    def read(self, frames: Sequence[Any]) -> Reading:
        """The header of an answer; its tensors are read by `outcome`.

        Args:
            frames: buffers, the header first.

        Raises:
            trtd.errors.TrtdError: it cannot be read.
        """
        header: Any = frames[0]
        if type(header) is not bytes:
            header = bytes(header)
        id_end = self._id_end
        known = self._known.get(header[id_end:_WIDE_TIMING_AT])
        if known is not None and header.startswith(self._before_id):
            first, queue_us, second, batch_us, third, compute_us = _WIDE_TIMING.unpack_from(header, _WIDE_TIMING_AT)
            if (
                first == _ARRAY_OF_3_UINT64
                and second == third == _UINT64
                and queue_us | batch_us | compute_us <= MAX_UINT
            ):
                return header[self._id_at : id_end], known.message, (queue_us, batch_us, compute_us), known
        message = codec.decode_router_message(header, frames[1:2])
        if not isinstance(message, InferAnswer):
            return message.id, message, (0, 0, 0), None
        timing = message.timing
        result = ResultHeader(message)
        self._learn(header, result)
        return message.id, message, (timing.queue_us, timing.batch_us, timing.compute_us), result

    def _learn(self, header: bytes, result: ResultHeader) -> None:
        timing = result.message.timing
        wide = (_ARRAY_OF_3_UINT64, timing.queue_us, _UINT64, timing.batch_us, _UINT64, timing.compute_us)
        request_id = result.message.id
        if not header.endswith(_TIMING_KEY + _WIDE_TIMING.pack(*wide)) or header.count(request_id) != 1:
            return
        id_at = header.find(request_id)
        if header[:id_at] != self._before_id or len(self._known) >= _MOST_KNOWN:
            self._known.clear()
            self._before_id, self._id_at, self._id_end = header[:id_at], id_at, id_at + REQUEST_ID_BYTES
        self._known[header[self._id_end : _WIDE_TIMING_AT]] = result


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
    _, message, timing_us, result = reading
    if result is not None:
        outputs = frames[1:]
        result.check(outputs, area)
        region = area.region if area is not None and result.has_refs else None
        return Answer(result, outputs, timing_us, total_s, region)
    if isinstance(message, ErrorAnswer):
        return error_from_wire(message.code, message.message, message.retry_after_s)
    if isinstance(message, HealthAnswer):
        return Health(message.is_ready, message.state, message.reason, message.daemon_version)
    assert isinstance(message, DescribeAnswer)  # noqa: S101  # the only kind that is left
    return message.models
