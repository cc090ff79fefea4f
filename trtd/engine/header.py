"""The header of a TensorRT plan, read from its bytes without TensorRT.

The layout is NVIDIA's and not documented as a whole; what is read here was compared with plans of TensorRT 10.6 and
TensorRT-RTX 1.7 and with what their runtimes assert. Integrity is not checked, here or by TensorRT: of plans with a
flipped bit behind the header every one was accepted by it. Only a digest protects.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from trtd.errors import InvalidConfig

HEADER_BYTES = 32
MAX_PARTS = 64
_HEAD = struct.Struct("<IIQQ4s4s")
_PART = struct.Struct("<4sIQQ")
_PART_BYTES = 24


class PlanKind(StrEnum):
    """Which family of runtimes reads a plan."""

    TENSORRT = "TensorRT"
    RTX = "TensorRT-RTX"


MAGIC: dict[int, PlanKind] = {0x74727466: PlanKind.TENSORRT, 0x74727476: PlanKind.RTX}

LEAN = "LEAN"
WEIGHTS = "WGHT"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a plan: its tag, and where it lies."""

    tag: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What the first bytes of a plan say.

    Attributes:
        kind: who reads it.
        serialization: version of the layout; 0 in all plans seen.
        version: major, minor, patch and build of the TensorRT that wrote it; the build modulo 256.
        platform: four bytes that name operating system and architecture.
        size_bytes: of the whole plan.
        parts: in the order of the header.
    """

    kind: PlanKind
    serialization: int
    version: tuple[int, int, int, int]
    platform: bytes
    size_bytes: int
    parts: tuple[Part, ...]

    @property
    def release(self) -> str:
        """The version for people: `10.6.0`."""
        return ".".join(str(number) for number in self.version[:3])

    @property
    def has_host_code(self) -> bool:
        """Whether it brings a lean runtime, which is code that would run on the host."""
        return any(part.tag == LEAN for part in self.parts)

    @property
    def weights_bytes(self) -> int:
        """Size of its weights; 0 where it has no such part."""
        return sum(part.size_bytes for part in self.parts if part.tag == WEIGHTS)


def read_header(data: bytes | memoryview) -> PlanHeader:
    """The header of a whole plan.

    Raises:
        trtd.errors.InvalidConfig: it is no plan, or not a whole one; it says why.
    """
    if not len(data):
        raise InvalidConfig("it is empty")
    if len(data) < HEADER_BYTES:
        raise InvalidConfig(f"it has {len(data)} bytes, and the header of a plan has {HEADER_BYTES}")
    magic, serialization, count, size_bytes, version, platform = _HEAD.unpack_from(data)
    kind = MAGIC.get(magic)
    if kind is None:
        raise InvalidConfig(f"it is no TensorRT plan: it begins with {bytes(data[:4])!r}, a plan with b'ftrt'")
    if size_bytes != len(data):
        state = "truncated" if len(data) < size_bytes else "followed by other bytes"
        raise InvalidConfig(f"it is {state}: its header says {size_bytes} bytes, the file has {len(data)}")
    parts = _read_parts(data, count)
    return PlanHeader(
        kind, serialization, (version[0], version[1], version[2], version[3]), platform, size_bytes, parts
    )


def _read_parts(data: bytes | memoryview, count: int) -> tuple[Part, ...]:
    if not 0 < count <= MAX_PARTS:
        raise InvalidConfig(f"its header names {count} parts; plans have 1 to {MAX_PARTS}")
    if HEADER_BYTES + count * _PART_BYTES > len(data):
        raise InvalidConfig(f"its header names {count} parts, for which it is too short")
    parts = []
    for index in range(count):
        tag, _, offset, size_bytes = _PART.unpack_from(data, HEADER_BYTES + index * _PART_BYTES)
        if offset + size_bytes > len(data):
            raise InvalidConfig(f"its part {index + 1} lies outside of it: {size_bytes} bytes at {offset}")
        # Written as a number, so that the letters stand in reverse order.
        parts.append(Part(tag[::-1].decode("ascii", "replace"), offset, size_bytes))
    return tuple(parts)
