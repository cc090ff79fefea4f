"""Inputs on their way to the device, with the bytes of a real copy and no device."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtd.runtime.inputs import Inputs, Layout
from trtd.runtime.tensorrt.pinned import PinnedMemory
from trtd.runtime.tensorrt.upload import CHUNK_BYTES, MIN_DIRECT_BYTES, parts_of, upload
from trtd.wire.messages import Dtype, TensorSpec

DEVICE = 1 << 40


class Device:
    """Memory that is copied to, and where each copy came from."""

    def __init__(self, size_bytes: int) -> None:
        self.bytes = np.full(size_bytes, 0xEE, np.uint8)
        self.sources: list[int] = []

    def copy(self, to: int, source: int, size: int) -> None:
        offset = to - DEVICE
        assert 0 <= offset <= offset + size <= self.bytes.nbytes
        ctypes.memmove(self.bytes.ctypes.data + offset, source, size)
        self.sources.append(source)


def pinned_memory(*arrays: np.ndarray) -> PinnedMemory:
    pinned = PinnedMemory(lambda *_: "", lambda _: None, lambda *_: None)
    for array in arrays:
        pinned.pin(array.ctypes.data, array.nbytes)
    return pinned


def random_bytes(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


SIZES = st.sampled_from(
    [0, 1, 64, 4096, 4097, MIN_DIRECT_BYTES - 1, MIN_DIRECT_BYTES, CHUNK_BYTES, 5 * CHUNK_BYTES // 2]
)


@settings(deadline=None, max_examples=60)
@given(parts=st.lists(st.tuples(SIZES, st.booleans()), max_size=6), padding=st.sampled_from([0, 1, 100_000]))
def test_the_device_gets_all_parts_in_order_and_zeros_behind(parts, padding):
    """Whatever is pinned, however large it is, the device has the requests' bytes one after the other, then zeros."""
    arrays = [random_bytes(size, seed) for seed, (size, _) in enumerate(parts)]
    pinned = pinned_memory(*[array for array, (_, is_pinned) in zip(arrays, parts, strict=True) if is_pinned])
    total = sum(array.nbytes for array in arrays) + padding
    staging = random_bytes(max(total, 1), 99)
    device = Device(total)
    upload([array.data for array in arrays], total, staging, DEVICE, pinned, device.copy)
    np.testing.assert_array_equal(device.bytes, np.concatenate([*arrays, np.zeros(padding, np.uint8)]))


@pytest.mark.parametrize("size", [MIN_DIRECT_BYTES, 2 * CHUNK_BYTES])
def test_large_pinned_parts_are_not_staged(size):
    """An input of one request in pinned memory is one copy, from where it lies."""
    memory = random_bytes(3 * CHUNK_BYTES, 1)
    part = memory[64 : 64 + size]
    device = Device(size)
    upload([part.data], size, random_bytes(size, 2), DEVICE, pinned_memory(memory), device.copy)
    assert device.sources == [part.ctypes.data]
    np.testing.assert_array_equal(device.bytes, part)


def test_a_part_that_is_pinned_in_part_is_staged():
    """What reaches over the end of pinned memory is not copied from where it lies."""
    part = random_bytes(MIN_DIRECT_BYTES, 1)
    staging = random_bytes(part.nbytes, 2)
    device = Device(part.nbytes)
    upload([part.data], part.nbytes, staging, DEVICE, pinned_memory(part[:-1]), device.copy)
    assert device.sources == [staging.ctypes.data]
    np.testing.assert_array_equal(device.bytes, part)


@pytest.mark.parametrize(("size", "is_pinned"), [(MIN_DIRECT_BYTES - 1, True), (MIN_DIRECT_BYTES, False)])
def test_small_and_unpinned_parts_are_staged(size, is_pinned):
    """What is small, or not pinned, goes by the staging in as few copies as there may be."""
    memory = random_bytes(4 * size, 1)
    parts = [memory[start : start + size] for start in range(0, 4 * size, size)]
    staging = random_bytes(memory.nbytes, 2)
    device = Device(memory.nbytes)
    pinned = pinned_memory(memory) if is_pinned else pinned_memory(staging[:1])
    upload([part.data for part in parts], memory.nbytes, staging, DEVICE, pinned, device.copy)
    assert device.sources == [staging.ctypes.data]
    np.testing.assert_array_equal(device.bytes, memory)


def test_parts_are_the_frames_or_the_bytes_of_arrays():
    """Requests from frames and requests of arrays give the same bytes, without a copy where there need be none."""
    array = np.arange(8, dtype=np.float32).reshape(2, 4)
    layout = Layout((TensorSpec("x", Dtype.FLOAT32, (2, 4)), TensorSpec("s", Dtype.FLOAT32, ())), 2)
    scalar = np.float32(5).tobytes()
    requests = [Inputs(layout, [array.tobytes(), scalar]), {"x": array, "s": np.array(5, np.float32)}]
    assert [bytes(part) for part in parts_of(requests, 0, "x")] == [array.tobytes()] * 2
    assert [bytes(part) for part in parts_of(requests, 1, "s")] == [scalar] * 2
    assert np.shares_memory(np.frombuffer(parts_of(requests, 0, "x")[1], np.uint8), array)
