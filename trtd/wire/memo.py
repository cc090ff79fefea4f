"""Decoding requests that were seen before: a client's headers for one model and shape differ in nothing but their id.

An encoder that writes the keys in the order of `trtd.wire.codec` (`v`, `type`, `id`, others) puts the id at a fixed
place. Two such headers that agree in all bytes but the id mean the same, so the second needs no decoding.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from trtd.core.ids import REQUEST_ID_BYTES, RequestId
from trtd.wire.arenas import REF_BYTES
from trtd.wire.codec import decode_client_message
from trtd.wire.frames import travelling_bytes
from trtd.wire.messages import WIRE_VERSION, ClientMessage, InferRequest, Place

MAX_ENTRIES = 512
MAX_BYTES = 2 * 1024 * 1024
"""Most headers that are remembered, and most bytes of them; what is kept beside a header grows with it."""

HeaderKey = tuple[int, bytes]
"""All of a header but its id."""

_BEFORE_ID = b"\xa1v" + bytes([WIRE_VERSION]) + b"\xa4type\xa5infer\xa2id\xc4" + bytes([REQUEST_ID_BYTES])
"""What stands between the byte that opens the map and the id."""
_ID_AT = 1 + len(_BEFORE_ID)
_ID_END = _ID_AT + REQUEST_ID_BYTES
BEFORE_ID = slice(_ID_AT)
ID = slice(_ID_AT, _ID_END)
AFTER_ID = slice(_ID_END, None)
"""The parts of a header that `split_header` can split."""


class Known(NamedTuple):
    """What a header means, apart from its id.

    Attributes:
        message: as decoded; its `id` may be another request's.
        frame_sizes: bytes of each frame that has to follow, that of the area included; None where the message is no
            request.
        has_refs: whether a frame names a place in an arena.
    """

    message: ClientMessage
    frame_sizes: list[int] | None
    has_refs: bool = False


T = TypeVar("T")


class Remembered(dict[HeaderKey, T], Generic[T]):
    """What was found out about headers. It starts anew rather than grow beyond its bounds."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def remember(self, key: HeaderKey, value: T) -> None:
        """Keep one more, that is not there."""
        self._bytes += len(key[1])
        if len(self) >= MAX_ENTRIES or self._bytes > MAX_BYTES:
            self.clear()
            self._bytes = len(key[1])
        self[key] = value


class HeaderMemo:
    """Remembers the headers that were decoded last, up to their ids."""

    def __init__(self) -> None:
        self._known: Remembered[Known] = Remembered()

    def decode(self, header: bytes) -> tuple[RequestId, Known]:
        """A client's message as its id and everything else.

        Raises:
            trtd.errors.Malformed, trtd.errors.UnsupportedVersion, trtd.errors.UnsupportedDtype: as
                `decode_client_message` does.
        """
        split = split_header(header)
        if split is None:
            message = decode_client_message(header)
            return message.id, _know(message)
        request_id, key = split
        known = self._known.get(key)
        if known is not None:
            return request_id, known
        message = decode_client_message(header)
        known = _know(message)
        self._known.remember(key, known)
        return message.id, known


def split_header(header: bytes) -> tuple[RequestId, HeaderKey] | None:
    """The id of a request and all the rest of its header; None where the id does not stand in its usual place.

    Whether the header can be decoded is not looked at.
    """
    if not header.startswith(_BEFORE_ID, 1):
        return None
    return RequestId(header[_ID_AT:_ID_END]), (header[0], header[_ID_END:])


def _know(message: ClientMessage) -> Known:
    if not isinstance(message, InferRequest):
        return Known(message, None)
    sizes = [travelling_bytes(spec) for spec in message.inputs]
    if message.has_area:
        sizes.append(REF_BYTES)
    has_refs = message.has_area or any(spec.place is Place.ARENA for spec in message.inputs)
    return Known(message, sizes, has_refs)
