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


def pack_bundles(messages: Iterable[Sequence[Any]]) -> list[tuple[Sequence[Any], list[Sequence[Any]]]]:
    """The messages, in order, as they travel together: the frames of each bundle, and the messages in it.

    A lone message travels as it is, and so does a large one.
    """
    groups: list[tuple[list[Sequence[Any]], list[Any]]] = []
    room = 0
    for frames in messages:
        packed, size = packing.pack_sized(frames)
        if size > MAX_BUNDLED_BYTES:
            groups.append(([frames], []))
            room = 0
        elif size <= room and len(groups[-1][0]) < MAX_BUNDLED:
            together, parts = groups[-1]
            together.append(frames)
            parts += packed
            room -= size
        else:
            groups.append(([frames], packed))
            room = MAX_BUNDLE_BYTES - size
    return [
        (together[0] if len(together) == 1 else [BUNDLE_HEADER, b"".join(parts)], together)
        for together, parts in groups
    ]


def unpack_bundle(frame: Any) -> list[list[Any]]:
    """The frames of each message, as bytes of their own or as views, whichever costs less.

    Raises:
        Malformed: it holds none or too many, or too many bytes, or is not whole.
    """
    size = frame_bytes(frame)
    if size > MAX_BUNDLE_BYTES:
        raise Malformed(f"the bundle has {size} bytes, the most is {MAX_BUNDLE_BYTES}")
    view = memoryview(frame)
    # Most clients repeat themselves.
    messages = packing.unpack_alike(view) or _unpack_each(view)
    if len(messages) > MAX_BUNDLED:
        raise Malformed(f"the bundle has more than {MAX_BUNDLED} messages")
    if not all(messages):
        raise Malformed("a message of the bundle has no frame")
    if not messages:
        raise Malformed("the bundle has no messages")
    return messages


def _unpack_each(view: memoryview) -> list[list[Any]]:
    messages: list[list[Any]] = []
    at = 0
    while at < len(view) and len(messages) <= MAX_BUNDLED:
        frames, at = packing.unpack(view, at)
        messages.append(frames)
    return messages
