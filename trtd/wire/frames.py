"""Tensor frames as bytes: how many there must be and how long each is. No numpy, so that the router starts fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trtd.errors import Malformed
from trtd.wire.arenas import REF_BYTES
from trtd.wire.messages import ITEM_BYTES, Place, TensorSpec


def payload_bytes(spec: TensorSpec) -> int:
    """Bytes of the tensor's elements."""
    return math.prod(spec.shape) * ITEM_BYTES[spec.dtype]


def travelling_bytes(spec: TensorSpec) -> int:
    """Bytes of the tensor's frame: its elements, or the reference to where they are."""
    return payload_bytes(spec) if spec.place is Place.FRAME else REF_BYTES


def frame_bytes(frame: Any) -> int:
    """Bytes of a frame: `bytes`, a `memoryview` of any format, or another object of the buffer protocol."""
    kind = type(frame)
    if kind is bytes:
        return len(frame)
    if kind is memoryview:
        return frame.nbytes  # type: ignore[no-any-return]  # int of a memoryview
    return memoryview(frame).nbytes


def check_frames(specs: Sequence[TensorSpec], frames: Sequence[Any]) -> int:
    """Compare tensor frames with their specs.

    Returns:
        Payload bytes of all frames together.

    Raises:
        Malformed: there are too few or too many frames, or one has not the size that its dtype and shape need.
    """
    if len(frames) != len(specs):
        raise Malformed(f"the header names {len(specs)} tensors, the message has {len(frames)} tensor frames")
    total = 0
    for spec, frame in zip(specs, frames, strict=True):
        size = frame_bytes(frame)
        needed = travelling_bytes(spec)
        if size != needed:
            what = f"{spec.dtype} of shape {list(spec.shape)}" if spec.place is Place.FRAME else "a place in an arena"
            raise Malformed(f"tensor {spec.name!a}: its frame has {size} bytes, {what} needs {needed}")
        total += size
    return total
