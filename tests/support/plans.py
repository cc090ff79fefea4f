"""Builders of files that look like TensorRT plans: a right header and parts without meaning."""

from __future__ import annotations

import struct


def make_plan(
    *,
    magic: bytes = b"ftrt",
    serialization: int = 0,
    version: tuple[int, int, int, int] = (10, 6, 0, 26),
    platform: bytes = b"rtrt",
    parts: tuple[tuple[str, int], ...] = (("ENGN", 100), ("WGHT", 200)),
) -> bytes:
    """A plan of TensorRT 10.6.0, as its header says."""
    table = b""
    offset = 32 + 24 * len(parts)
    for tag, size_bytes in parts:
        table += struct.pack("<4sIQQ", tag[::-1].encode(), 0, offset, size_bytes)
        offset += size_bytes
    head = magic + struct.pack("<IQQ", serialization, len(parts), offset) + bytes(version) + platform
    return head + table + bytes(offset - len(head) - len(table))
