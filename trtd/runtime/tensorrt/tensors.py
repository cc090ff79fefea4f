"""The tensors of an engine, as TensorRT tells of them and as trtd needs them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from trtd.errors import InvalidConfig
from trtd.runtime.tensorrt.judge import ask
from trtd.runtime.tensorrt.profiles import Profile, Range, Shape
from trtd.wire.messages import Dtype
from trtd.wire.tensors import to_numpy

DTYPES: dict[str, Dtype] = {
    "FLOAT": Dtype.FLOAT32,
    "HALF": Dtype.FLOAT16,
    "BF16": Dtype.BFLOAT16,
    "FP8": Dtype.FLOAT8_E4M3FN,
    "E8M0": Dtype.FLOAT8_E8M0FNU,
    "INT8": Dtype.INT8,
    "INT32": Dtype.INT32,
    "INT64": Dtype.INT64,
    "UINT8": Dtype.UINT8,
    "BOOL": Dtype.BOOL,
}
"""TensorRT's types that travel, by their name in any version."""

LINEAR = "LINEAR"
NOT_ROW_MAJOR = re.compile("channel|stride", re.IGNORECASE)
"""In the description of every other layout; TensorRT 10.6 and later."""


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
    profiles = range(engine.num_optimization_profiles)
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        type_name = engine.get_tensor_dtype(name).name
        dtype = DTYPES.get(type_name)
        if dtype is None:
            raise InvalidConfig(f"its tensor {name!r} is of type {type_name}, which does not travel")
        layout = next(filter(None, (foreign_layout(module, engine, name, index) for index in profiles)), "")
        if layout:
            raise InvalidConfig(
                f"its tensor {name!r} is laid out in memory as {layout}, and tensors travel row by row; build it with "
                "linear inputs and outputs (allowed_formats, or --inputIOFormats and --outputIOFormats of trtexec)"
            )
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


def foreign_layout(module: ModuleType, engine: Any, name: str, profile: int) -> str:
    """How a tensor lies in memory in a profile, where that is not row by row without gaps; empty where it is.

    The vectorized dimension does not tell: it is -1 for all layouts of one component, of which HWC is one.
    """
    if hasattr(module, "TensorFormat"):
        layout = str(engine.get_tensor_format(name, profile).name)
        return "" if layout == LINEAR else layout
    # Lean runtimes do not have the enum, only its description; that of a linear tensor speaks of rows and its type.
    told = str(engine.get_tensor_format_desc(name, profile))
    is_vectorized = engine.get_tensor_vectorized_dim(name, profile) != -1
    return told or "vectors" if is_vectorized or NOT_ROW_MAJOR.search(told) else ""


def read_profiles(engine: Any, tensors: tuple[EngineTensor, ...]) -> tuple[Profile, ...]:
    """All optimization profiles: shapes of the inputs, and values of the shape tensors.

    Raises:
        CallRefused: TensorRT does not tell of one.
    """
    inputs = [tensor for tensor in tensors if tensor.is_input]
    return tuple(
        Profile(
            index,
            {tensor.name: _read_range(engine, tensor, index) for tensor in inputs},
            {tensor.name: values for tensor in inputs if (values := _read_values(engine, tensor, index)) is not None},
        )
        for index in range(engine.num_optimization_profiles)
    )


def _read_range(engine: Any, tensor: EngineTensor, profile: int) -> Range:
    if tensor.is_host and -1 not in tensor.shape:
        # TensorRT tells of the values of such a tensor, and not always of its shape.
        return Range(tensor.shape, tensor.shape, tensor.shape)
    low, best, high = ask(engine.get_tensor_profile_shape, tensor.name, profile)
    return Range(tuple(low), tuple(best), tuple(high))


def _read_values(engine: Any, tensor: EngineTensor, profile: int) -> Range | None:
    if not tensor.is_host or not engine.is_shape_inference_io(tensor.name):
        return None
    # The binding has the names of its two arguments the wrong way round.
    found = ask(engine.get_tensor_profile_values, profile, tensor.name)
    return Range(*(tuple(int(value) for value in values) for values in found)) if len(found) == 3 else None
