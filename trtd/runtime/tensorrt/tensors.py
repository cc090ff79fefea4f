"""The tensors of an engine, as TensorRT tells of them and as trtd needs them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from trtd.errors import InvalidConfig
from trtd.runtime.tensorrt.profiles import Profile, Range, Shape
from trtd.wire.messages import Dtype
from trtd.wire.tensors import to_numpy

DTYPES: dict[str, Dtype] = {
    "FLOAT": Dtype.FLOAT32,
    "HALF": Dtype.FLOAT16,
    "BF16": Dtype.BFLOAT16,
    "INT8": Dtype.INT8,
    "INT32": Dtype.INT32,
    "INT64": Dtype.INT64,
    "UINT8": Dtype.UINT8,
    "BOOL": Dtype.BOOL,
}
"""TensorRT's types that travel, by their name in any version."""


@dataclass(frozen=True, slots=True)
class EngineTensor:
    """One input or output.

    Attributes:
        name: of it.
        dtype: as it travels.
        numpy: the same for arrays.
        shape: -1 where it varies.
        is_input: or output.
        is_host: whether TensorRT wants it in host memory (a shape tensor).
    """

    name: str
    dtype: Dtype
    numpy: np.dtype[Any]
    shape: Shape
    is_input: bool
    is_host: bool

    def size_bytes(self, shape: Shape) -> int:
        """Bytes of an array of a shape without free dimensions."""
        return math.prod(shape) * self.numpy.itemsize


def read_tensors(module: ModuleType, engine: Any) -> tuple[EngineTensor, ...]:
    """All tensors in the engine's order.

    Raises:
        trtd.errors.InvalidConfig: one is of a type or a memory layout that does not travel.
    """
    found = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        type_name = engine.get_tensor_dtype(name).name
        dtype = DTYPES.get(type_name)
        if dtype is None:
            raise InvalidConfig(f"its tensor {name!r} is of type {type_name}, which does not travel")
        if engine.get_tensor_vectorized_dim(name, 0) != -1:
            raise InvalidConfig(f"its tensor {name!r} has a vectorized layout; build it with linear inputs and outputs")
        found.append(
            EngineTensor(
                name=name,
                dtype=dtype,
                numpy=np.dtype(to_numpy(dtype)),
                shape=tuple(engine.get_tensor_shape(name)),
                is_input=engine.get_tensor_mode(name) == module.TensorIOMode.INPUT,
                is_host=engine.get_tensor_location(name) == module.TensorLocation.HOST,
            )
        )
    return tuple(found)


def read_profiles(engine: Any, tensors: tuple[EngineTensor, ...]) -> tuple[Profile, ...]:
    """All optimization profiles. Shape tensors count with their own shape; what values they may have is not checked."""
    profiles = []
    for index in range(engine.num_optimization_profiles):
        ranges = {}
        for tensor in tensors:
            if tensor.is_input:
                if tensor.is_host:
                    ranges[tensor.name] = Range(tensor.shape, tensor.shape, tensor.shape)
                else:
                    low, best, high = engine.get_tensor_profile_shape(tensor.name, index)
                    ranges[tensor.name] = Range(tuple(low), tuple(best), tuple(high))
        profiles.append(Profile(index, ranges))
    return tuple(profiles)
