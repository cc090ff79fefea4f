"""numpy arrays as tensor frames and back: C order, little endian, without copies where the memory is so already.

Counting and sizing frames without numpy is in `trtd.wire.frames`. bfloat16 and the float8s, which numpy lacks, travel
as their bits: a uint16 or uint8 array here, wrapped as `BFloat16` or `Float8` where its dtype has to be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from trtd.errors import Malformed, UnsupportedDtype
from trtd.wire.float8 import Float8Form, round_to
from trtd.wire.frames import check_frames as check_frames
from trtd.wire.frames import frame_bytes
from trtd.wire.frames import payload_bytes as payload_bytes
from trtd.wire.messages import ITEM_BYTES, Dtype, TensorSpec

FLOAT8S: dict[Dtype, Float8Form] = {
    Dtype.FLOAT8_E4M3FN: Float8Form(4, 3, 7, has_sign=True, not_numbers=frozenset({0x7F, 0xFF})),
    Dtype.FLOAT8_E4M3FNUZ: Float8Form(4, 3, 8, has_sign=True, not_numbers=frozenset({0x80})),
    Dtype.FLOAT8_E5M2: Float8Form(
        5, 2, 15, has_sign=True, not_numbers=frozenset({0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF}), infinities=(0x7C, 0xFC)
    ),
    Dtype.FLOAT8_E5M2FNUZ: Float8Form(5, 2, 16, has_sign=True, not_numbers=frozenset({0x80})),
    Dtype.FLOAT8_E8M0FNU: Float8Form(8, 0, 127, has_sign=False, not_numbers=frozenset({0xFF})),
}
_BITS: dict[Dtype, str] = {Dtype.BFLOAT16: "uint16", **dict.fromkeys(FLOAT8S, "uint8")}
_TO_NUMPY: dict[Dtype, np.dtype[Any]] = {
    dtype: np.dtype(_BITS.get(dtype, dtype.value)).newbyteorder("<") for dtype in Dtype
}
_FROM_NUMPY: dict[np.dtype[Any], Dtype] = {_TO_NUMPY[dtype]: dtype for dtype in Dtype if dtype not in _BITS}
_EXTENSIONS = {dtype.value: dtype for dtype in _BITS}
"""By what extensions of numpy (ml_dtypes) call them."""


@dataclass(frozen=True, slots=True, eq=False)
class BFloat16:
    """A bfloat16 tensor, told apart from uint16.

    Attributes:
        bits: the 16 bits of each element, dtype uint16.
    """

    bits: npt.NDArray[np.uint16]

    @property
    def dtype(self) -> Dtype:
        """As it travels."""
        return Dtype.BFLOAT16

    def __post_init__(self) -> None:
        if not isinstance(self.bits, np.ndarray) or self.bits.dtype != np.uint16:
            raise TypeError("BFloat16 takes an array of uint16; BFloat16.from_float32 converts numbers")

    @classmethod
    def from_float32(cls, values: npt.ArrayLike) -> BFloat16:
        """Round float32 numbers to the nearest bfloat16, ties to even; a NaN stays a NaN."""
        floats = np.asarray(values, dtype=np.float32)
        bits = floats.view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        quiet = (bits >> np.uint32(16)) | np.uint32(0x0040)
        return cls(np.where(np.isnan(floats), quiet, rounded).astype(np.uint16))

    def to_float32(self) -> npt.NDArray[np.float32]:
        """The same numbers as float32, exactly."""
        # NumPy makes a scalar of what is computed from a 0-d array.
        return np.asarray(self.bits.astype(np.uint32) << np.uint32(16)).view(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.bits.shape


@dataclass(frozen=True, slots=True, eq=False)
class Float8:
    """A tensor of one of the float8s, told apart from uint8.

    Attributes:
        bits: the 8 bits of each element, dtype uint8.
        dtype: which of them.
    """

    bits: npt.NDArray[np.uint8]
    dtype: Dtype

    def __post_init__(self) -> None:
        if not isinstance(self.bits, np.ndarray) or self.bits.dtype != np.uint8:
            raise TypeError("Float8 takes an array of uint8; Float8.from_float32 converts numbers")
        if self.dtype not in FLOAT8S:
            raise ValueError(f"dtype has to be one of {', '.join(FLOAT8S)}, not {self.dtype}")

    @classmethod
    def from_float32(cls, values: npt.ArrayLike, dtype: Dtype | str) -> Float8:
        """Round float32 numbers to the nearest that the dtype has, ties to even; those beyond become the largest.

        What it cannot have at all (NaN where there is none, numbers below 0 without a sign) becomes the nearest too.
        """
        return cls(round_to(_table(Dtype(dtype)), np.asarray(values, dtype=np.float32)), Dtype(dtype))

    def to_float32(self) -> npt.NDArray[np.float32]:
        """The same numbers as float32, exactly."""
        return np.asarray(_table(self.dtype)[self.bits])

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.bits.shape


Bits = BFloat16 | Float8
"""Tensors of dtypes that numpy lacks."""
Tensor = np.ndarray | BFloat16 | Float8


@cache
def _table(dtype: Dtype) -> npt.NDArray[np.float32]:
    return FLOAT8S[dtype].values()


def wrap(dtype: Dtype, array: np.ndarray) -> Tensor:
    """An array of `to_numpy(dtype)` as a tensor that tells its dtype."""
    if dtype is Dtype.BFLOAT16:
        return BFloat16(array)
    return Float8(array, dtype) if dtype in FLOAT8S else array


def bits_of(tensor: Tensor) -> np.ndarray:
    """A tensor as an array of numpy's: its bits where numpy lacks its dtype."""
    return tensor.bits if isinstance(tensor, Bits) else tensor


def to_dtype(dtype: np.dtype[Any]) -> Dtype:
    """The name on the wire of a numpy dtype of any byte order.

    Raises:
        UnsupportedDtype: strings, objects, dates, structures and long doubles do not travel.
    """
    known = _FROM_NUMPY.get(dtype)
    if known is not None:
        return known
    if dtype.name in _EXTENSIONS:
        return _EXTENSIONS[dtype.name]
    known = _FROM_NUMPY.get(dtype.newbyteorder("<"))
    if known is None:
        raise UnsupportedDtype(f"dtype {dtype} does not travel; send one of {', '.join(Dtype)}")
    return known


def to_numpy(dtype: Dtype) -> np.dtype[Any]:
    """The numpy dtype of a tensor, little endian; uint16 or uint8 for what numpy lacks."""
    return _TO_NUMPY[dtype]


def spec_of(name: str, tensor: Tensor) -> TensorSpec:
    """The spec of a tensor that travels in a frame.

    Raises:
        UnsupportedDtype: its dtype does not travel.
    """
    dtype = tensor.dtype if isinstance(tensor, Bits) else to_dtype(tensor.dtype)
    return TensorSpec(name, dtype, tensor.shape)


def to_frame(tensor: Tensor) -> memoryview:
    """The bytes of a tensor as one flat buffer.

    It is the tensor's own memory where that is contiguous and little endian, else a copy; so the tensor must not change
    until it is sent.

    Raises:
        UnsupportedDtype: its dtype does not travel.
    """
    array = bits_of(tensor)
    if array.dtype not in _FROM_NUMPY:
        dtype = to_dtype(array.dtype)
        array = array.view(_TO_NUMPY[dtype]) if dtype in _BITS else array.astype(_TO_NUMPY[dtype])
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def to_bytes(array: np.ndarray) -> bytes:
    """The bytes of a tensor as a copy, which for small ones takes less than `to_frame`.

    Raises:
        UnsupportedDtype: its dtype does not travel.
    """
    return array.tobytes() if array.dtype in _FROM_NUMPY else bytes(to_frame(array))


def from_frame(spec: TensorSpec, frame: Any) -> np.ndarray:
    """The tensor in a frame: a read-only view on the frame's memory, a copy only where that is not aligned.

    Args:
        spec: what the header says of it.
        frame: `bytes`, a `memoryview` or another object of the buffer protocol.

    Raises:
        Malformed: the frame's size does not fit, or a bool is neither 0 nor 1 (undefined behaviour in a runtime; to
        look
            costs about 10 us per MiB).
    """
    size = frame_bytes(frame)
    if size != payload_bytes(spec):
        raise Malformed(
            f"tensor {spec.name!a}: its frame has {size} bytes, "
            f"{spec.dtype} of shape {list(spec.shape)} needs {payload_bytes(spec)}"
        )
    array: np.ndarray = np.ndarray(spec.shape, _TO_NUMPY[spec.dtype], frame)
    if spec.dtype is Dtype.BOOL and size and array.view(np.uint8).max() > 1:
        raise Malformed(f"tensor {spec.name!a}: its frame has bytes other than 0 and 1, which no bool may have")
    if not array.flags.aligned:
        array = array.copy()
    array.flags.writeable = False
    return array


assert all(_TO_NUMPY[dtype].itemsize == ITEM_BYTES[dtype] for dtype in Dtype)  # noqa: S101  # two tables, one truth
