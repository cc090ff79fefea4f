"""The numbers of float8: each format is a table of what its 256 patterns of bits mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PATTERNS = 256


@dataclass(frozen=True, slots=True)
class Float8Form:
    """One format.

    Attributes:
        exponent_bits: of each number.
        mantissa_bits: likewise.
        bias: of the exponent.
        has_sign: whether the first bit is one.
        not_numbers: patterns that mean NaN.
        infinities: patterns that mean an infinity, plus and minus.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    has_sign: bool
    not_numbers: frozenset[int]
    infinities: tuple[int, ...] = ()

    def values(self) -> npt.NDArray[np.float32]:
        """What each pattern means."""
        return np.array([self._value(bits) for bits in range(PATTERNS)], np.float32)

    def _value(self, bits: int) -> float:
        if bits in self.not_numbers:
            return float("nan")
        sign = -1.0 if self.has_sign and bits & 0x80 else 1.0
        if bits in self.infinities:
            return sign * float("inf")
        exponent = bits >> self.mantissa_bits & (1 << self.exponent_bits) - 1
        mantissa = bits & (1 << self.mantissa_bits) - 1
        scale = 1 << self.mantissa_bits
        if not self.mantissa_bits:
            return 2.0 ** (exponent - self.bias)
        if not exponent:
            return float(sign * mantissa / scale * 2.0 ** (1 - self.bias))
        return float(sign * (1 + mantissa / scale) * 2.0 ** (exponent - self.bias))


def round_to(table: npt.NDArray[np.float32], values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The patterns of the finite numbers nearest to these; of two that are as near, the one whose last bit is 0."""
    finite = np.flatnonzero(np.isfinite(table))
    order = finite[np.argsort(table[finite], kind="stable")]
    numbers = table[order].astype(np.float64)
    wide = values.astype(np.float64)
    above = np.clip(np.searchsorted(numbers, wide), 1, len(order) - 1)
    to_low, to_high = wide - numbers[above - 1], numbers[above] - wide
    is_high = (to_high < to_low) | ((to_high == to_low) & (order[above] & 1 == 0))
    patterns = np.where(is_high, order[above], order[above - 1])
    # Both zeros are equal here; the sign of the number decides.
    zeros = np.flatnonzero(table == 0)
    if len(zeros) > 1:
        patterns = np.where(patterns == zeros[1], zeros[0], patterns)
        patterns = np.where((table[patterns] == 0) & np.signbit(values), zeros[1], patterns)
    nans = np.flatnonzero(np.isnan(table))
    return np.where(np.isnan(values), nans[0], patterns).astype(np.uint8)
