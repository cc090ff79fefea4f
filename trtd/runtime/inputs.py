"""The inputs of one request as a worker receives them: frames, of which arrays are made only where they are asked for.

A batch of small requests never asks: `trtd.runtime.gather` joins the frames of all requests at once, at a tenth of the
time that an array for each of them takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trtd.wire.messages import Dtype, TensorSpec
from trtd.wire.tensors import from_frame, to_numpy


class Layout:
    """What requests with equal headers have in common.

    Attributes:
        specs: the inputs, in the order of the model, which is that of the frames.
        items: first dimension of all of them; 1 where the model is not batched.
        outputs: names of the outputs that are wanted; None for all.
    """

    __slots__ = ("_has_bools", "_views", "items", "outputs", "specs")

    def __init__(self, specs: tuple[TensorSpec, ...], items: int, outputs: tuple[str, ...] | None = None) -> None:
        self.specs = specs
        self.items = items
        self.outputs = outputs
        self._has_bools = any(spec.dtype is Dtype.BOOL for spec in specs)
        self._views = [(spec.name, spec.shape, to_numpy(spec.dtype)) for spec in specs]

    def arrays(self, frames: Sequence[Any]) -> dict[str, np.ndarray]:
        """Read-only views on frames of the right sizes; copies of those that are not aligned.

        Raises:
            trtd.errors.Malformed: a bool is neither 0 nor 1.
        """
        if self._has_bools:
            return {spec.name: from_frame(spec, frame) for spec, frame in zip(self.specs, frames, strict=True)}
        arrays = {}
        for (name, shape, dtype), frame in zip(self._views, frames, strict=True):
            array: np.ndarray = np.ndarray(shape, dtype, frame)
            flags = array.flags
            if not flags.aligned:
                array = array.copy()
                flags = array.flags
            if flags.writeable:
                flags.writeable = False
            arrays[name] = array
        return arrays


def wanted(request: Mapping[str, Any], outputs: tuple[str, ...]) -> tuple[str, ...]:
    """Which outputs a request is to be given, of those that the model has; requests of one batch agree in that."""
    asked = request.layout.outputs if type(request) is Inputs else None
    return outputs if asked is None else asked


class Inputs(Mapping[str, np.ndarray]):
    """Read-only arrays by name, as views on the frames. Frames and their sizes were checked by whoever makes it."""

    __slots__ = ("_arrays", "area", "frames", "layout")

    def __init__(self, layout: Layout, frames: Sequence[Any], area: Any = None) -> None:
        """Refer to the frames, without a copy.

        Args:
            layout: what the frames are.
            frames: bytes of each input: `bytes`, or a flat `memoryview` of bytes.
            area: opaque here: where the client wants its outputs.
        """
        self.layout = layout
        self.frames = frames
        self.area = area
        self._arrays: dict[str, np.ndarray] | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All of them as a plain dictionary."""
        if self._arrays is None:
            self._arrays = self.layout.arrays(self.frames)
        return self._arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.frames)
