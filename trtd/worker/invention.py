"""Inputs that nobody sent: in the ranges of inputs that an operator gave, or else in ranges that most models take.

For `trtd.worker.joining`. The same model gets the same inputs at each start, so that it comes to the same verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

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


class Inventor(Protocol):
    """Makes requests up."""

    def ordinary(self, items: int) -> Arrays:
        """A request as any other; each one differs."""
        ...

    def loud(self, items: int, strength: float) -> Arrays:
        """A request whose floats are so much larger than usual, of both signs."""
        ...


def inventors(inputs: Sequence[TensorContract], like: Arrays, *, is_given: bool) -> Iterator[Inventor]:
    """Those to be tried one after the other, until the model takes what one of them makes.

    Args:
        inputs: of the model.
        like: a request; what is made up has its shapes but for the first dimension.
        is_given: whether an operator gave it: then its values say what the model takes.
    """
    if not is_given:
        for manner in MANNERS:
            yield Numbers(inputs, like, manner)
        return
    yield Numbers(inputs, like, None)
    rows = {len(array) for array in like.values()}
    if len(rows) == 1 and rows.pop() > 1:
        yield Rows(like)


def copies(request: Arrays, items: int) -> Arrays:
    """The first item of a request, so many times."""
    return {name: np.repeat(array[:1], items, axis=0) for name, array in request.items()}


class Numbers:
    """Makes up number by number: of the values given, within the range given, or in a manner."""

    def __init__(self, inputs: Sequence[TensorContract], like: Arrays, manner: Manner | None) -> None:
        self._inputs = inputs
        self._like = like
        self._manner = manner
        self._random = np.random.default_rng(SEED)
        # A probe of ones alone says nothing of the range.
        self._is_constant = all(not array.size or bool((array == array.flat[0]).all()) for array in like.values())

    def ordinary(self, items: int) -> Arrays:
        """See `Inventor.ordinary`."""
        return {one.name: self._make(one, items, None) for one in self._inputs}

    def loud(self, items: int, strength: float) -> Arrays:
        """See `Inventor.loud`."""
        return {one.name: self._make(one, items, strength) for one in self._inputs}

    def _make(self, contract: TensorContract, items: int, strength: float | None) -> np.ndarray:
        sample = self._like[contract.name]
        shape = (items, *sample.shape[1:])
        if contract.dtype in FLOATS:
            return _as(contract.dtype, self._floats(widen(contract.dtype, sample), shape, strength))
        if contract.dtype is Dtype.BOOL:
            return self._random.integers(0, 2, shape).astype(np.bool_)
        if self._manner is None:
            return self._random.choice(sample.reshape(-1), shape) if sample.size else np.zeros(shape, sample.dtype)
        kind = to_numpy(contract.dtype)
        return self._random.integers(self._manner.least, self._manner.most, shape, endpoint=True).astype(kind)

    def _floats(self, sample: np.ndarray, shape: tuple[int, ...], strength: float | None) -> np.ndarray:
        usual = np.abs(sample[np.isfinite(sample)])
        largest = float(usual.max()) if usual.size and self._manner is None else 1.0
        if strength is not None:
            return self._random.standard_normal(shape) * max(largest, 1.0) * strength
        if self._manner is not None:
            return self._random.standard_normal(shape) if self._manner.is_signed else self._random.random(shape)
        real = sample.real[np.isfinite(sample.real)]
        low, high = (float(real.min()), float(real.max())) if real.size else (0.0, 1.0)
        if self._is_constant:
            low, high = low - max(largest, 1.0), high + max(largest, 1.0)
        return self._random.uniform(low, high, shape)


class Rows:
    """Makes nothing up but the order of the items that were given: for models that take no other values."""

    def __init__(self, like: Arrays) -> None:
        self._like = like
        self._random = np.random.default_rng(SEED)

    def ordinary(self, items: int) -> Arrays:
        """See `Inventor.ordinary`; as many items as were given differ."""
        count = len(next(iter(self._like.values())))
        order = np.resize(self._random.permutation(count), items)
        return {name: np.ascontiguousarray(array[order]) for name, array in self._like.items()}

    def loud(self, items: int, strength: float) -> Arrays:  # noqa: ARG002 - see `Inventor`
        """No louder than others: larger numbers would be made up."""
        return self.ordinary(items)


def _as(dtype: Dtype, numbers: np.ndarray) -> np.ndarray:
    """Floats of a dtype, none of them infinite."""
    if dtype is Dtype.BFLOAT16:
        return np.ascontiguousarray(BFloat16.from_float32(numbers).bits)
    if dtype in FLOAT8S:
        return np.ascontiguousarray(Float8.from_float32(numbers, dtype).bits)
    kind = to_numpy(dtype)
    if kind.kind == "f":
        numbers = np.clip(numbers, np.finfo(kind).min, np.finfo(kind).max)
    return np.ascontiguousarray(numbers.astype(kind))
