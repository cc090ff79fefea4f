"""Arrays as frames and back: the same numbers, in little endian and C order, without copies where possible."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.wire import make_spec
from trtd.errors import Malformed, UnsupportedDtype
from trtd.wire import tensors
from trtd.wire.messages import Dtype, TensorSpec
from trtd.wire.tensors import BFloat16, Float8

NUMBERS = np.arange(24).reshape(2, 3, 4)


def travel(array: Any) -> np.ndarray:
    """What the other side gets."""
    return tensors.from_frame(tensors.spec_of("x", array), bytes(tensors.to_frame(array)))


@pytest.mark.parametrize("dtype", [dtype for dtype in Dtype if "bfloat" not in dtype and "float8" not in dtype])
@pytest.mark.parametrize("shape", [(24,), (2, 3, 4), (1, 24, 1)])
def test_every_dtype_travels(dtype: Dtype, shape: tuple[int, ...]) -> None:
    """An array arrives with its numbers, its dtype and its shape."""
    array = NUMBERS.reshape(shape).astype(tensors.to_numpy(dtype))
    assert tensors.spec_of("x", array) == TensorSpec("x", dtype, shape)
    arrived = travel(array)
    np.testing.assert_array_equal(arrived, array, strict=True)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 5), (0, 0)])
@pytest.mark.parametrize("dtype", ["float32", "bool", "complex64"])
def test_empty_and_0d_tensors_travel(shape: tuple[int, ...], dtype: str) -> None:
    """A tensor of no or one element keeps its shape."""
    array = np.ones(shape, dtype)
    np.testing.assert_array_equal(travel(array), array, strict=True)


@pytest.mark.parametrize(
    "array",
    [
        NUMBERS.astype(">i4"),
        NUMBERS.astype(">f8")[::2, :, 1:3].T,
        NUMBERS.astype(">c8"),
        NUMBERS[:, ::-1],
        NUMBERS.T,
        np.asfortranarray(NUMBERS),
        np.broadcast_to(np.float32(3), (4, 5)),
        np.arange(10, dtype=np.float16)[::-3],
        np.array(7, dtype=">u2"),
    ],
)
def test_any_layout_arrives_in_c_order_and_little_endian(array: np.ndarray) -> None:
    """Byte order and strides of the sender do not matter."""
    arrived = travel(array)
    np.testing.assert_array_equal(arrived, array)
    assert arrived.flags.c_contiguous
    assert arrived.dtype == array.dtype.newbyteorder("<")


def test_contiguous_arrays_are_not_copied() -> None:
    """The frame of a plain array is the array's own memory, and the array read from a frame is the frame's."""
    array = NUMBERS.astype(np.float32)
    frame = tensors.to_frame(array)
    assert np.shares_memory(np.frombuffer(frame, np.uint8), array)
    assert (frame.nbytes, frame.ndim, frame.format) == (96, 1, "B")
    arrived = tensors.from_frame(make_spec("x", shape=(2, 3, 4)), frame)
    assert np.shares_memory(arrived, array)


def test_arrays_read_from_frames_are_read_only() -> None:
    """Nobody writes into a received message, not even where its buffer would allow it."""
    for frame in (bytes(16), bytearray(16)):
        arrived = tensors.from_frame(make_spec(), frame)
        with pytest.raises(ValueError, match="read-only"):
            arrived[0, 0] = 1


def test_a_copy_has_the_bytes_of_the_frame() -> None:
    """Whatever order and strides an array has, its copy is what its frame is; what does not travel is refused."""
    for array in (np.arange(6).reshape(2, 3), np.arange(6.0).reshape(2, 3).T, np.arange(6, dtype=">u2")[::2]):
        assert tensors.to_bytes(array) == bytes(tensors.to_frame(array))
    with pytest.raises(UnsupportedDtype):
        tensors.to_bytes(np.array(["text"]))


def test_arrays_read_from_odd_addresses_are_aligned() -> None:
    """A runtime gets aligned memory, also from a frame that starts anywhere."""
    buffer = np.arange(9, dtype=np.float32).tobytes()
    for offset in range(4):
        arrived = tensors.from_frame(make_spec(shape=(8,)), memoryview(buffer)[offset : offset + 32])
        assert arrived.flags.aligned
        assert arrived.tobytes() == buffer[offset : offset + 32]


def test_a_frame_of_another_size_is_refused() -> None:
    """The line names the tensor."""
    for size in (0, 15, 17):
        with pytest.raises(Malformed, match=f"tensor 'x': its frame has {size} bytes"):
            tensors.from_frame(make_spec(), bytes(size))


@pytest.mark.parametrize("byte", [2, 128, 255])
def test_a_bool_that_is_neither_0_nor_1_is_refused(byte: int) -> None:
    """Such a byte is undefined behaviour in a runtime, so it never gets there."""
    with pytest.raises(Malformed, match="bytes other than 0 and 1"):
        tensors.from_frame(make_spec(dtype=Dtype.BOOL, shape=(3,)), bytes([0, 1, byte]))
    arrived = tensors.from_frame(make_spec(dtype=Dtype.BOOL, shape=(2,)), b"\x00\x01")
    assert arrived.tolist() == [False, True]


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a"]),
        np.array([b"a"]),
        np.array([None]),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.array([1], "timedelta64[s]"),
        np.zeros(1, np.longdouble),
        np.zeros(1, np.clongdouble),
        np.zeros(1, [("a", "f4")]),
        np.zeros(1, "V4"),
    ],
)
def test_what_is_no_number_does_not_travel(array: np.ndarray) -> None:
    """Strings, objects, dates, structures and long doubles are refused with a typed error, by spec and by frame."""
    with pytest.raises(UnsupportedDtype, match="does not travel"):
        tensors.spec_of("x", array)
    with pytest.raises(UnsupportedDtype, match="does not travel"):
        tensors.to_frame(array)


def test_aliases_of_a_dtype_are_the_same_dtype() -> None:
    """C names of numpy's dtypes travel as what they are on this host."""
    assert tensors.to_dtype(np.dtype("longlong")) is Dtype.INT64
    assert tensors.to_dtype(np.dtype("intc")) is Dtype.INT32
    assert tensors.to_dtype(np.dtype(">f2")) is Dtype.FLOAT16


def test_bfloat16_travels_as_its_bits() -> None:
    """bfloat16 has a dtype of its own on the wire and is uint16 in numpy."""
    tensor = BFloat16.from_float32([[1.0, -2.0]])
    assert tensors.spec_of("x", tensor) == TensorSpec("x", Dtype.BFLOAT16, (1, 2))
    assert bytes(tensors.to_frame(tensor)).hex() == "803f00c0"
    arrived = travel(tensor)
    assert arrived.dtype == np.uint16
    np.testing.assert_array_equal(BFloat16(arrived).to_float32(), [[1.0, -2.0]])


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (1.0039063692092896, 0x3F81), (-0.0, 0x8000),
        (float("inf"), 0x7F80), (3.4e38, 0x7F80), (-3.4028234663852886e38, 0xFF80), (1e-45, 0x0000), (9.2e-41, 0x0001),
    ],
)  # fmt: skip
def test_float32_is_rounded_to_the_nearest_bfloat16(value: float, bits: int) -> None:
    """Ties go to the even neighbour, too large numbers to infinity, the sign of zero stays."""
    assert BFloat16.from_float32(value).bits == bits


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_rounding_never_misses_the_nearest(bits: int) -> None:
    """No bfloat16 is nearer to a float32 than the one it is rounded to, and a NaN stays one."""
    value = np.array(bits, np.uint32).view(np.float32)
    rounded = BFloat16.from_float32(value)
    back = rounded.to_float32()
    if np.isnan(value):
        assert np.isnan(back)
        return
    low = np.array(bits & 0xFFFF0000, np.uint32).view(np.float32)
    high = np.array(min((bits | 0xFFFF) + 1, 2**32 - 1) & 0xFFFF0000, np.uint32).view(np.float32)
    assert back in (low, high) or np.isinf(back)
    if np.isfinite(low) and np.isfinite(high):
        distance = abs(np.float64(back) - np.float64(value))
        assert distance <= min(abs(np.float64(low) - np.float64(value)), abs(np.float64(high) - np.float64(value)))


def test_bfloat16_takes_bits_only() -> None:
    """Numbers given as bits by mistake are refused."""
    with pytest.raises(TypeError, match="takes an array of uint16"):
        BFloat16(np.zeros(3, np.float32))  # type: ignore[arg-type]  # the mistake


def test_a_0d_bfloat16_scalar_stays_an_array():
    """A bfloat16 tensor without dimensions becomes a float32 array without dimensions."""
    floats = BFloat16.from_float32(1.5).to_float32()
    assert isinstance(floats, np.ndarray)
    assert (floats.shape, float(floats)) == ((), 1.5)


FLOAT8S = sorted(tensors.FLOAT8S)


@pytest.mark.parametrize("dtype", FLOAT8S)
def test_float8_means_what_others_say_that_it_means(dtype: Dtype) -> None:
    """Every pattern of bits is the number that ml_dtypes takes it for, and every such number has its own pattern."""
    patterns = np.arange(256, dtype=np.uint8)
    numbers = Float8(patterns, dtype).to_float32()
    expected = patterns.view(np.dtype(getattr(ml_dtypes, dtype))).astype(np.float32)
    np.testing.assert_array_equal(numbers, expected)
    finite = np.isfinite(numbers)
    np.testing.assert_array_equal(Float8.from_float32(numbers[finite], dtype).bits, patterns[finite])
    assert np.isnan(Float8.from_float32(np.nan, dtype).to_float32())


@pytest.mark.parametrize("dtype", [dtype for dtype in FLOAT8S if dtype is not Dtype.FLOAT8_E8M0FNU])
def test_float32_is_rounded_to_the_nearest_float8(dtype: Dtype) -> None:
    """As ml_dtypes rounds, ties included; what is too large becomes the largest there is."""
    numbers = Float8(np.arange(256, dtype=np.uint8), dtype).to_float32()
    finite = np.sort(numbers[np.isfinite(numbers)])
    between = (finite[1:] + finite[:-1]) / 2
    values = np.concatenate([between, np.nextafter(between, np.float32(0)), finite * np.float32(0.99)])
    expected = values.astype(np.dtype(getattr(ml_dtypes, dtype))).view(np.uint8)
    np.testing.assert_array_equal(Float8.from_float32(values, dtype).bits, expected)
    largest = Float8.from_float32([np.inf, 1e9, -1e9], dtype).to_float32()
    assert largest.tolist() == [finite[-1], finite[-1], finite[0]]


@pytest.mark.parametrize("dtype", FLOAT8S)
def test_float8_travels(dtype: Dtype) -> None:
    """As its bits, from our own type and from an array of ml_dtypes, in whatever order it lies in memory."""
    bits = np.arange(24, dtype=np.uint8).reshape(2, 3, 4).T
    for tensor in (Float8(bits, dtype), bits.view(np.dtype(getattr(ml_dtypes, dtype)))):
        assert tensors.spec_of("x", tensor) == TensorSpec("x", dtype, (4, 3, 2))
        np.testing.assert_array_equal(travel(tensor), bits)


def test_float8_takes_bits_and_its_own_dtypes_only() -> None:
    """Numbers given as bits by mistake, and other dtypes, are refused."""
    with pytest.raises(TypeError, match="takes an array of uint8"):
        Float8(np.zeros(3, np.float32), Dtype.FLOAT8_E5M2)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match="not float32"):
        Float8(np.zeros(3, np.uint8), Dtype.FLOAT32)
