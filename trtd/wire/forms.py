"""Headers of results that differ in nothing but id and timing: encoded once, then filled in.

They mean what `trtd.wire.codec.encode_router_message` writes, at a tenth of its time. Only the numbers of the timing
are written otherwise: at their full width, so that they need no encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from msgpack import packb

from trtd.core.ids import RequestId
from trtd.errors import TooLarge
from trtd.wire.codec import decode_router_message, encode_router_message
from trtd.wire.messages import MAX_HEADER_BYTES, InferAnswer, TensorSpec, Timing

_SAMPLE_ID = RequestId(bytes(range(0xA0, 0xB0)))
_SAMPLE_TIMING = Timing(0, 0, 0)
_SAMPLE_TIMING_BYTES = packb((0, 0, 0))
_ARRAY_OF_3 = b"\x93"
_TIMING_FORMAT = "BQBQBQ"
_UINT64 = 0xCF


class ResultForm:
    """The header of one model's results with outputs of certain shapes."""

    def __init__(self, model: str, version: str, generation: int, outputs: tuple[TensorSpec, ...]) -> None:
        """Encode what stays the same.

        Raises:
            trtd.errors.TooLarge: a header could break its limit.
            trtd.errors.Malformed: nobody could read it.
        """
        sample = encode_router_message(InferAnswer(_SAMPLE_ID, model, version, generation, outputs, _SAMPLE_TIMING))
        before, _, after = sample.removesuffix(_SAMPLE_TIMING_BYTES).partition(_SAMPLE_ID)
        after += _ARRAY_OF_3
        whole = Struct(f">{len(before)}s{len(_SAMPLE_ID)}s{len(after)}s{_TIMING_FORMAT}")
        if whole.size > MAX_HEADER_BYTES:
            raise TooLarge(f"the outputs of model {model!r} have too many or too long names for a header")
        self._before = before
        self._after = after
        self._pack = whole.pack
        # What cannot be read answers nobody, who then waits until the time is up.
        decode_router_message(self.header(_SAMPLE_ID, 0, 0, 0))

    def header(self, request: RequestId, queue_us: int, batch_us: int, compute_us: int) -> bytes:
        """The header of one result."""
        return self._pack(self._before, request, self._after, _UINT64, queue_us, _UINT64, batch_us, _UINT64, compute_us)

    def headers(
        self, requests: Sequence[RequestId], queue_us: Sequence[int], batch_us: Sequence[int], compute_us: int
    ) -> list[bytes]:
        """The headers of several results, without a call for each."""
        pack, before, after, mark = self._pack, self._before, self._after, _UINT64
        return [
            pack(before, request, after, mark, queued_us, mark, waited_us, mark, compute_us)
            for request, queued_us, waited_us in zip(requests, queue_us, batch_us, strict=True)
        ]
