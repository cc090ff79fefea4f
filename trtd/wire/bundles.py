"""Several messages between a client and the router as one of two frames: a fixed header, and the messages packed.

A client sends bundles only to an endpoint that said in its `Welcome` (`trtd.wire.arenas`) that it takes them, and an
endpoint answers in bundles only where it got one on the same connection. What stands in a bundle is exactly what would
have been sent one by one; each request is answered by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from trtd.errors import Malformed
from trtd.wire import headers, packing
from trtd.wire.frames import frame_bytes
from trtd.wire.messages import WIRE_VERSION

BUNDLE_HEADER = headers.pack_header({"v": WIRE_VERSION, "type": "bundle"})
MAX_BUNDLED = 64
"""Most messages in one bundle."""
MAX_BUNDLED_BYTES = 64 * 1024
"""Messages with more bytes than this travel by themselves; copying them together would cost more than it saves."""
MAX_BUNDLE_BYTES = 4 * MAX_BUNDLED_BYTES
"""Most bytes of the packed frame."""


def pack_bundle(messages: Iterable[Sequence[Any]]) -> bytes:
    """The second frame of a bundle; the bounds above are the caller's to keep."""
    parts: list[Any] = []
    for frames in messages:
        parts += packing.pack(frames)
    return b"".join(parts)


def unpack_bundle(frame: Any) -> list[list[memoryview]]:
    """The frames of each message, as views.

    Raises:
        Malformed: it holds none or too many, or too many bytes, or is not whole.
    """
    size = frame_bytes(frame)
    if size > MAX_BUNDLE_BYTES:
        raise Malformed(f"the bundle has {size} bytes, the most is {MAX_BUNDLE_BYTES}")
    view = memoryview(frame)
    messages: list[list[memoryview]] = []
    at = 0
    while at < size:
        frames, at = packing.unpack(view, at)
        if not frames:
            raise Malformed(f"message {len(messages)} of the bundle has no frame")
        if len(messages) == MAX_BUNDLED:
            raise Malformed(f"the bundle has more than {MAX_BUNDLED} messages")
        messages.append(frames)
    if not messages:
        raise Malformed("the bundle has no messages")
    return messages
