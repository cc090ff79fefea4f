"""Tensor frames are counted and measured before anything else is done with them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.support.wire import make_spec
from trtd.errors import Malformed
from trtd.wire.frames import check_frames, payload_bytes
from trtd.wire.messages import Dtype

SPECS = (
    make_spec("x", Dtype.FLOAT32, (2, 3)),
    make_spec("mask", Dtype.BOOL, ()),
    make_spec("none", Dtype.INT64, (0, 7)),
)
FRAMES = [bytes(24), bytes(1), b""]


def test_fitting_frames_are_summed() -> None:
    """The router learns how many payload bytes a request has."""
    assert check_frames(SPECS, FRAMES) == 25
    assert check_frames((), []) == 0


def test_any_buffer_is_measured_in_bytes() -> None:
    """Views count in bytes and not in items."""
    floats = np.zeros((2, 3), np.float32)
    assert check_frames(SPECS, [memoryview(floats), bytearray(1), memoryview(b"")]) == 25
    assert check_frames(SPECS[:1], [floats]) == 24


@pytest.mark.parametrize("frames", [[], FRAMES[:2], [*FRAMES, b""]])
def test_a_missing_or_further_frame_is_refused(frames: list[bytes]) -> None:
    """As many frames follow a header as it names tensors."""
    with pytest.raises(Malformed, match=f"names 3 tensors, the message has {len(frames)} tensor frames"):
        check_frames(SPECS, frames)


@pytest.mark.parametrize("size", [0, 23, 25])
def test_a_frame_of_another_size_is_refused(size: int) -> None:
    """The line names the tensor, what it has and what it needs."""
    with pytest.raises(
        Malformed, match=re.escape(f"tensor 'x': its frame has {size} bytes, float32 of shape [2, 3] needs 24")
    ):
        check_frames(SPECS, [bytes(size), *FRAMES[1:]])


@pytest.mark.parametrize(("dtype", "shape", "size"), [(Dtype.COMPLEX128, (), 16), (Dtype.BFLOAT16, (3,), 6)])
def test_payload_is_elements_times_item(dtype: Dtype, shape: tuple[int, ...], size: int) -> None:
    """A 0-d tensor has one element."""
    assert payload_bytes(make_spec("x", dtype, shape)) == size
