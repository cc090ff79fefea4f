"""Inputs that nobody sent: in the ranges of inputs that an operator gave, or else in ranges that most models take.

For `trtd.worker.joining`. The same model gets the same inputs at each start, so that it comes to the same verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

from trtd.runtime.protocol import Arrays
from trtd.wire.messages import Dtype, TensorContract
from trtd.wire.tensors import FLOAT8S, BFloat16, Float8, to_numpy
from trtd.worker.numbers import widen
from trtd.worker.plans import FLOATS

SEED = 20_261_201


@dataclass(frozen=True, slots=True)
class Manner:
    """Which numbers are made up where none were given.

    Attributes:
        is_signed: floats from the normal distribution, else from 0 to 1.
        least: of whole numbers.
        most: likewise.
    """

    is_signed: bool
    least: int
    most: int


MANNERS = (Manner(True, 1, 9), Manner(False, 1, 2), Manner(False, 0, 1))
"""From what shows most to what most models take. Indices stay small; 0, by which a model may divide, comes last."""

SCALES = (1e-3, 1e2)
"""What the floats of a second and a third try are multiplied with: near zero, and as large as ages and pixels are."""

LOUD_WHOLE = 1000
"""Largest whole number of a loud request: above most thresholds on counts, below the size of most vocabularies."""


class Inventor(Protocol):
    """Makes requests up."""

    @property
    def is_coarse(self) -> bool:
        """Whether numbers are so large that their last digits may decide, as between two logits of some thousands."""
        ...

    def ordinary(self, items: int) -> Arrays:
        """A request as any other; each one differs."""
        ...

    def loud(self, items: int, strength: float, *, has_loud_whole: bool) -> Arrays:
        """A request whose floats are so much larger than usual, of both signs; and whose whole numbers may be."""
        ...

    def poisoned(self, items: int) -> Arrays | None:
        """A request whose floats are infinite or not a number; None where there are no floats."""
        ...


def families(inputs: Sequence[TensorContract], like: Arrays, *, is_given: bool) -> Iterator[tuple[Inventor, ...]]:
    """Those to be tried one after the other, until the model takes what the first of a family makes, and all is shown.

    Args:
        inputs: of the model.
        like: a request; what is made up has its shapes but for the first dimension.
        is_given: whether an operator gave it: then its values say what the model takes.
    """
    if not is_given:
        for manner in MANNERS:
            yield _scaled(inputs, like, manner)
        return
    yield _scaled(inputs, like, None)
    rows = {len(array) for array in like.values()}
    if len(rows) == 1 and rows.pop() > 1:
        yield (Rows(like),)


def _scaled(inputs: Sequence[TensorContract], like: Arrays, manner: Manner | None) -> tuple[Inventor, ...]:
    has_scale = any(one.dtype in FLOATS or one.dtype is Dtype.BOOL for one in inputs)
    return tuple(Numbers(inputs, like, manner, scale) for scale in ((1.0, *SCALES) if has_scale else (1.0,)))


def copies(request: Arrays, items: int) -> Arrays:
    """The first item of a request, so many times."""
    return {name: np.repeat(array[:1], items, axis=0) for name, array in request.items()}


class Numbers:
    """Makes up number by number: of the values given, within the range given, or in a manner.

    Items differ in the range of their whole numbers: in a large one each number of a range occurs, so that the largest
    of all items would be the largest of each, and a model that looks for it would not be found out.
    """

    def __init__(
        self, inputs: Sequence[TensorContract], like: Arrays, manner: Manner | None, scale: float = 1.0
    ) -> None:
        self._inputs = inputs
        self._like = like
        self._manner = manner
        self._scale = scale
        self._random = np.random.default_rng(SEED)
        # A probe of ones alone says nothing of the range.
        self._is_constant = all(not array.size or bool((array == array.flat[0]).all()) for array in like.values())

    @property
    def is_coarse(self) -> bool:
        """See `Inventor.is_coarse`."""
        return self._scale > 1

    def ordinary(self, items: int) -> Arrays:
        """See `Inventor.ordinary`."""
        return {one.name: self._make(one, items) for one in self._inputs}

    def loud(self, items: int, strength: float, *, has_loud_whole: bool) -> Arrays:
        """See `Inventor.loud`."""
        return {one.name: self._make(one, items, strength, has_loud_whole=has_loud_whole) for one in self._inputs}

    def poisoned(self, items: int) -> Arrays | None:
        """See `Inventor.poisoned`."""
        made = dict(self.ordinary(items))
        for one in self._inputs:
            if one.dtype in FLOATS:
                poison = self._random.choice([np.nan, np.inf, -np.inf], made[one.name].shape)
                made[one.name] = _as(one.dtype, poison, is_finite=False)
        return made if any(one.dtype in FLOATS for one in self._inputs) else None

    def _make(
        self, contract: TensorContract, items: int, strength: float | None = None, *, has_loud_whole: bool = False
    ) -> np.ndarray:
        sample = self._like[contract.name]
        shape = (items, *sample.shape[1:])
        if contract.dtype in FLOATS:
            wide = widen(contract.dtype, sample)
            numbers = self._floats(wide, shape, strength)
            return _as(
                contract.dtype,
                numbers + 1j * self._floats(wide, shape, strength) if wide.dtype.kind == "c" else numbers,
            )
        if contract.dtype is Dtype.BOOL:
            # Near zero some items are all false. Else none is: a mask that leaves nothing gives no number.
            shares = self._random.choice([0.0, 0.5] if self._scale < 1 else [0.5, 1.0], items)
            return self._random.random(shape) < _per_item(shares, shape)
        kind = to_numpy(contract.dtype)
        if self._manner is None:
            values = np.unique(sample)
            return values[self._whole(0, len(values) - 1, shape, np.int64)] if values.size else np.zeros(shape, kind)
        if has_loud_whole:
            # Of larger types none so large that what is made from it, as so many rows, would not fit into memory.
            kinds = np.iinfo(kind)
            low, high = (kinds.min, kinds.max) if kind.itemsize == 1 else (self._manner.least, LOUD_WHOLE)
            return self._random.integers(low, high, shape, kind, endpoint=True)
        return self._whole(self._manner.least, self._manner.most, shape, kind)

    def _whole(self, least: int, most: int, shape: tuple[int, ...], kind: DTypeLike) -> np.ndarray:
        """Whole numbers, for each item from a range of its own."""
        ends = np.sort(self._random.integers(least, most, (2, shape[0]), endpoint=True), axis=0)
        low, high = (_per_item(one, shape) for one in ends)
        return self._random.integers(low, high, shape, kind, endpoint=True)

    def _floats(self, sample: np.ndarray, shape: tuple[int, ...], strength: float | None) -> np.ndarray:
        usual = np.abs(sample[np.isfinite(sample)])
        largest = float(usual.max()) if usual.size and self._manner is None else 1.0
        if strength is not None:
            scale = max(largest, 1.0) * strength * self._scale
            return self._random.standard_normal(shape, np.float32) * np.float32(scale)
        if self._manner is not None:
            make = self._random.standard_normal if self._manner.is_signed else self._random.random
            return make(shape, np.float32) * np.float32(self._scale)
        real = sample.real[np.isfinite(sample.real)]
        low, high = (float(real.min()), float(real.max())) if real.size else (0.0, 1.0)
        if self._is_constant:
            low, high = low - max(largest, 1.0), high + max(largest, 1.0)
        return self._random.uniform(low * self._scale, high * self._scale, shape)


class Rows:
    """Makes nothing up but the order of the items that were given: for models that take no other values."""

    is_coarse = False

    def __init__(self, like: Arrays) -> None:
        self._like = like
        self._random = np.random.default_rng(SEED)

    def ordinary(self, items: int) -> Arrays:
        """See `Inventor.ordinary`; as many items as were given differ."""
        count = len(next(iter(self._like.values())))
        order = np.resize(self._random.permutation(count), items)
        return {name: np.ascontiguousarray(array[order]) for name, array in self._like.items()}

    def loud(self, items: int, strength: float, *, has_loud_whole: bool) -> Arrays:  # noqa: ARG002 - see `Inventor`
        """No louder than others: larger numbers would be made up."""
        return self.ordinary(items)

    def poisoned(self, items: int) -> None:
        """Nothing: it would be made up."""


def _per_item(numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return numbers.reshape(-1, *(1,) * (len(shape) - 1))


def _as(dtype: Dtype, numbers: np.ndarray, *, is_finite: bool = True) -> np.ndarray:
    """Floats of a dtype, none of them infinite unless that is meant."""
    if dtype is Dtype.BFLOAT16:
        return np.ascontiguousarray(BFloat16.from_float32(numbers).bits)
    if dtype in FLOAT8S:
        return np.ascontiguousarray(Float8.from_float32(numbers, dtype).bits)
    kind = to_numpy(dtype)
    if kind.kind == "f" and is_finite:
        numbers = np.clip(numbers, np.finfo(kind).min, np.finfo(kind).max)
    return np.ascontiguousarray(numbers.astype(kind))
