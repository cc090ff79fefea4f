"""Shared memory of clients: how requests and answers name places in it, and the messages of the socket that offers it.

An arena is a memfd of a client, sealed against growing and shrinking. The client sends its descriptor once over a unix
socket of packets beside the tenant's endpoint, and gets a key; requests of the same process then name places in it by
`ArenaRef`, and a worker writes the outputs into the area that a request names. Checks of the descriptor itself are left
to `trtd.router.arenas`, the use of the memory to `trtd.worker.arenas` and `trtd.client.arenas`.

Packets are flat msgpack arrays `[v, kind, ...]`. Decoders raise `Malformed` or `UnsupportedVersion` with one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Any, NamedTuple

from msgpack import packb

from trtd.errors import Malformed
from trtd.wire import headers
from trtd.wire.messages import WIRE_VERSION

REF = Struct("<QQQ")
"""Key, offset and size of an `ArenaRef`: the whole of its frame."""
REF_BYTES = REF.size
PLACE_ALIGNMENT_BYTES = 64
"""Offsets are multiples of it, so that every dtype is aligned."""
MIN_PLACED_BYTES = 16 * 1024
"""Smaller outputs travel in frames: to name a place costs more than to copy them."""
MAX_PACKET_BYTES = 2048

_REQUIRED_HEAD = 2


class ArenaRef(NamedTuple):
    """A place in an arena.

    Attributes:
        key: of the arena, as the router gave it.
        offset: of the first byte, a multiple of `PLACE_ALIGNMENT_BYTES`.
        size_bytes: how many there are.
    """

    key: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """Router to client, first packet of each connection.

    Attributes:
        max_arena_bytes: most bytes of all arenas of the tenant's clients together; 0 where none are taken.
        has_bundles: whether the endpoint takes several requests in one message.
    """

    max_arena_bytes: int
    has_bundles: bool


@dataclass(frozen=True, slots=True)
class ArenaOffered:
    """Client to router, with the memfd beside it.

    Attributes:
        number: the client's own, which comes back.
        size_bytes: of the memfd.
    """

    number: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArenaAccepted:
    """Router to client: requests may name the arena."""

    number: int
    key: int


@dataclass(frozen=True, slots=True)
class ArenaRefused:
    """Router to client: the arena is not taken; its descriptor was closed. `code` is an `ErrorCode`."""

    number: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ArenaWithdrawn:
    """Client to router: no further request will name the arena. It ends with the last request that does."""

    key: int


ArenaPacket = Welcome | ArenaOffered | ArenaAccepted | ArenaRefused | ArenaWithdrawn


def encode_ref(ref: ArenaRef) -> bytes:
    """The frame of a reference."""
    return REF.pack(*ref)


def decode_ref(frame: Any) -> ArenaRef:
    """A reference from its frame; whether there is such a place is for whoever has the arena.

    Raises:
        Malformed: the frame has another size, or the offset is not aligned.
    """
    if len(frame) != REF_BYTES:
        raise Malformed(f"the place in an arena has {len(frame)} bytes, expected {REF_BYTES}")
    ref = ArenaRef(*REF.unpack(frame))
    if ref.offset % PLACE_ALIGNMENT_BYTES:
        raise Malformed(f"the place in an arena starts at {ref.offset}, expected a multiple of {PLACE_ALIGNMENT_BYTES}")
    return ref


def encode_packet(packet: ArenaPacket) -> bytes:
    """The bytes of a packet."""
    items: list[Any]
    if isinstance(packet, Welcome):
        items = ["welcome", packet.max_arena_bytes, packet.has_bundles]
    elif isinstance(packet, ArenaOffered):
        items = ["offered", packet.number, packet.size_bytes]
    elif isinstance(packet, ArenaAccepted):
        items = ["accepted", packet.number, packet.key]
    elif isinstance(packet, ArenaRefused):
        items = ["refused", packet.number, packet.code, headers.one_line(packet.message)]
    else:
        items = ["withdrawn", packet.key]
    data: bytes = packb([WIRE_VERSION, *items])
    return data


def decode_packet(data: bytes) -> ArenaPacket:
    """A packet from its bytes.

    Raises:
        Malformed, UnsupportedVersion: it is none.
    """
    items = headers.unpack(data, "the packet", MAX_PACKET_BYTES)
    if type(items) is not tuple or len(items) < _REQUIRED_HEAD:
        raise Malformed("expected an array [v, kind, ...]")
    version, kind, *fields = items
    if type(version) is not int or version != WIRE_VERSION:
        raise headers.wrong_version(version)
    kinds = [type(field) for field in fields]
    if kind == "welcome" and kinds == [int, bool] and _are_uints(fields[:1]):
        return Welcome(*fields)
    if kind == "offered" and kinds == [int, int] and _are_uints(fields):
        return ArenaOffered(*fields)
    if kind == "accepted" and kinds == [int, int] and _are_uints(fields):
        return ArenaAccepted(*fields)
    if kind == "refused" and kinds == [int, str, str] and _are_uints(fields[:1]):
        return ArenaRefused(*fields)
    if kind == "withdrawn" and kinds == [int] and _are_uints(fields):
        return ArenaWithdrawn(*fields)
    raise Malformed(f"the packet {headers.show(kind)} of {len(fields)} fields is none of wire version {WIRE_VERSION}")


def _are_uints(values: list[Any]) -> bool:
    return all(0 <= value <= headers.MAX_UINT for value in values)
