"""Several requests as one batch and back: inputs joined along the first dimension, outputs cut along it.

For runtimes that take a batch as one array per input. A single request passes untouched, without a copy. What is joined
is a copy: whatever a client does to its shared memory afterwards, the batch stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import overload

import numpy as np

from trtd.errors import ModelFailed
from trtd.runtime.inputs import Inputs
from trtd.runtime.protocol import Arrays
from trtd.wire.tensors import to_numpy


def join(requests: Sequence[Arrays]) -> Arrays:
    """The inputs of all requests as those of one batch; names, dtypes and all dimensions but the first agree."""
    first = requests[0]
    if len(requests) == 1:
        return first.arrays if type(first) is Inputs else first
    frames = [request.frames for request in requests if type(request) is Inputs]
    if type(first) is not Inputs or len(frames) != len(requests):
        return {name: np.concatenate([request[name] for request in requests]) for name in first}
    items = _ends(requests)[-1]
    return {
        spec.name: np.ndarray((items, *spec.shape[1:]), to_numpy(spec.dtype), b"".join(parts))
        for spec, parts in zip(first.layout.specs, zip(*frames, strict=True), strict=True)
    }


def joined_shapes(requests: Sequence[Arrays], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The shapes that `join` would give, in the order of the names, without making an array."""
    first = requests[0]
    known = {spec.name: spec for spec in first.layout.specs} if type(first) is Inputs else first
    if len(requests) == 1:
        return {name: known[name].shape for name in names}
    items = _ends(requests)[-1]
    return {name: (items, *known[name].shape[1:]) for name in names}


class Rows(Sequence[Arrays]):
    """The outputs of a batch as those of each of its requests, in order: views, made where they are asked for.

    Attributes:
        outputs: of the whole batch, as C-contiguous arrays with a row for each item.
        ends: for each request the row after its last one; a `range` where all have the same number of rows.
    """

    __slots__ = ("ends", "outputs")

    def __init__(self, outputs: Arrays, ends: Sequence[int]) -> None:
        self.outputs = outputs
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> Arrays: ...
    @overload
    def __getitem__(self, index: slice) -> list[Arrays]: ...
    def __getitem__(self, index: int | slice) -> Arrays | list[Arrays]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        end = self.ends[index]
        place = index % len(self.ends)
        start = self.ends[place - 1] if place else 0
        return {name: array[start:end] for name, array in self.outputs.items()}


def cut(outputs: Arrays, requests: Sequence[Arrays]) -> Sequence[Arrays]:
    """The outputs of a batch as those of each of its requests: views, in the order of the requests.

    Raises:
        trtd.errors.ModelFailed: an output has not one item for each item of the inputs, so that nobody can tell whose
            is whose. A request that runs alone never sees this.
    """
    if len(requests) == 1:
        return [outputs]
    ends = _ends(requests)
    total = ends[-1]
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != total:
            raise ModelFailed(f"output {name!r} has shape {list(array.shape)} for a batch of {total} items")
    return Rows({name: np.ascontiguousarray(array) for name, array in outputs.items()}, ends)


def _ends(requests: Sequence[Arrays]) -> Sequence[int]:
    """For each request the row after its last one; a `range` where all of them have the same number of rows."""
    first = requests[0]
    if type(first) is Inputs and first.layout.items:
        layouts = [request.layout if type(request) is Inputs else None for request in requests]
        if layouts.count(first.layout) == len(requests):
            items = first.layout.items
            return range(items, items * len(requests) + 1, items)
    return list(accumulate(map(_items, requests)))


def _items(request: Arrays) -> int:
    if type(request) is Inputs:
        return request.layout.items
    return int(next(iter(request.values())).shape[0])
