"""Numbers of any dtype as ones that can be compared."""

from __future__ import annotations

import numpy as np

from trtd.wire.messages import Dtype
from trtd.wire.tensors import Bits, wrap
from trtd.worker.plans import FLOATS


def widen(dtype: Dtype, array: np.ndarray) -> np.ndarray:
    """Numbers whose differences do not overflow."""
    tensor = wrap(dtype, array)
    if isinstance(tensor, Bits):
        return tensor.to_float32()
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def is_close(dtype: Dtype, got: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    """Whether two outputs say the same.

    Floats may differ by the tolerance, relative to the largest number that is wanted; NaN equals NaN, and infinity
    itself. Whole numbers and bools have to be equal.
    """
    if got.shape != wanted.shape:
        return False
    if dtype not in FLOATS:
        return np.array_equal(got, wanted)
    wide_got, wide_wanted = widen(dtype, got), widen(dtype, wanted)
    finite = np.abs(wide_wanted[np.isfinite(wide_wanted)])
    largest = float(finite.max()) if finite.size else 0.0
    return bool(np.isclose(wide_got, wide_wanted, rtol=0.0, atol=tolerance * largest, equal_nan=True).all())
