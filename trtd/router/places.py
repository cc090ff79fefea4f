"""What a request's references to shared memory mean: the arenas that they name, checked, and the bytes in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, cast

from trtd.core.arenas import Arena, ArenaBook
from trtd.core.dispatch import Request
from trtd.errors import Malformed
from trtd.router.access import parse_peer
from trtd.wire.arenas import REF_BYTES, decode_ref, encode_ref
from trtd.wire.codec import decode_client_message
from trtd.wire.frames import payload_bytes
from trtd.wire.messages import InferRequest, Place

PIECE_BYTES = 1 << 20
"""How much of an arena is read at a time."""
MAX_READ_BYTES = 64 * PIECE_BYTES
"""Most bytes read of one request's inputs: about what can be read and hashed in a tenth of a second."""

_process_of = lru_cache(maxsize=4096)(lambda address: peer.process if (peer := parse_peer(address)) else None)


def resolve(
    book: ArenaBook, address: str, message: InferRequest, frames: Sequence[Any]
) -> tuple[tuple[Arena, ...], int]:
    """The arenas that a request names, each once, and how many payload bytes are there instead of in its frames.

    The area for the outputs does not count: what a request holds is the same whichever way its tensors travel.

    Args:
        book: of the tenant.
        address: of the peer, as libzmq says it.
        message: the request.
        frames: those after its header, as many and as long as they have to be.

    Raises:
        ArenaUnknown: this process has offered no such arena.
        Malformed: a place is not aligned, not in its arena, or not as long as its tensor.
    """
    # Of a peer that is no local process the address stands for itself: nobody offered an arena under it. Processes in
    # other pid namespaces are all alike here; the key, which is told on one connection alone, says whose the arena is.
    owner = _process_of(address) or address
    arenas: dict[Arena, None] = {}
    beside_bytes = 0
    for spec, frame in zip(message.inputs, frames, strict=False):
        if spec.place is not Place.ARENA:
            continue
        ref = decode_ref(frame)
        needed = payload_bytes(spec)
        if ref.size_bytes != needed:
            raise Malformed(f"tensor {spec.name!a}: its place has {ref.size_bytes} bytes, it needs {needed}")
        arenas[book.find(owner, *ref)] = None
        beside_bytes += needed - REF_BYTES
    if message.has_area:
        arenas[book.find(owner, *decode_ref(frames[-1]))] = None
    return tuple(arenas), beside_bytes


def without_area(payload: Sequence[Any]) -> Sequence[Any]:
    """A request's frames with an area of no bytes, for a worker that is not the first to get it.

    The first one may not be as dead as it seems, and write its outputs late. The client takes large outputs that came
    in frames as a sign that it must not use that memory again.
    """
    message = cast("InferRequest", decode_client_message(payload[0]))
    if not message.has_area:
        return payload
    return (*payload[:-1], encode_ref(decode_ref(payload[-1])._replace(size_bytes=0)))


def tensor_pieces(request: Request, message: InferRequest) -> Iterator[Any]:
    """The bytes of a request's inputs one after the other, wherever they are; of a very large request every so many.

    What cannot be read of an arena is left out: its client may do with its memory what it likes.
    """
    arenas = {arena.key: arena for arena in request.memory or ()}
    total_bytes = sum(map(payload_bytes, message.inputs))
    step_bytes = PIECE_BYTES * max(1, -(-total_bytes // MAX_READ_BYTES))
    for spec, frame in zip(message.inputs, request.payload[1:], strict=False):
        if spec.place is not Place.ARENA:
            view = memoryview(frame).cast("B")
            yield from (view[start : start + PIECE_BYTES] for start in range(0, len(view), step_bytes))
            continue
        key, offset, size_bytes = decode_ref(frame)
        yield from _read(arenas[key].fd, offset, offset + size_bytes, step_bytes)


def _read(fd: int, first: int, end: int, step_bytes: int) -> Iterator[bytes]:
    for start in range(first, end, step_bytes):
        try:
            piece = os.pread(fd, min(PIECE_BYTES, end - start), start)
        except OSError:
            return
        yield piece
