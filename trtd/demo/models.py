"""Small ONNX models with random weights of a given seed: a CNN, an MLP, a wide one, and an identity of any dtype.

For `trtd demo`, tests and benchmarks. Needs the `onnx` package (`pip install 'trtd[demo]'`), imported when a model is
made. The same seed gives the same file. The first dimension of every tensor is the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from trtd.errors import InvalidConfig
from trtd.wire.messages import Dtype

OPSET = 17
IR_VERSION = 8
"""Old enough for every ONNX Runtime that trtd supports."""

ONNX_NAMES = {Dtype.FLOAT32: "FLOAT", Dtype.FLOAT64: "DOUBLE"}
"""Names of TensorProto's element types where they differ from ours in more than case."""


def cnn(seed: int, *, classes: int = 10) -> bytes:
    """A convolutional classifier: `image` [N, 3, 32, 32] float32 to `scores` [N, classes] float32 that add up to 1."""
    onnx = _onnx()
    rng = np.random.default_rng(seed)
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["image", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2", "b2"], ["c2"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["c2"], ["r2"]),
        node("GlobalAveragePool", ["r2"], ["pooled"]),
        node("Flatten", ["pooled"], ["features"], axis=1),
        node("Gemm", ["features", "w3", "b3"], ["logits"]),
        node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    weights = {
        "w1": _weights(rng, 8, 3, 3, 3),
        "b1": _weights(rng, 8),
        "w2": _weights(rng, 16, 8, 3, 3),
        "b2": _weights(rng, 16),
        "w3": _weights(rng, 16, classes),
        "b3": _weights(rng, classes),
    }
    image = _tensor("image", Dtype.FLOAT32, (3, 32, 32))
    return _model("cnn", nodes, [image], [_tensor("scores", Dtype.FLOAT32, (classes,))], weights)


def mlp(seed: int, *, features: int = 64, hidden: int = 128, outputs: int = 8) -> bytes:
    """Two dense layers: `x` [N, features] float32 to `y` [N, outputs] float32."""
    onnx = _onnx()
    rng = np.random.default_rng(seed)
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        onnx.helper.make_node("Relu", ["h"], ["r"]),
        onnx.helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    weights = {
        "w1": _weights(rng, features, hidden),
        "b1": _weights(rng, hidden),
        "w2": _weights(rng, hidden, outputs),
        "b2": _weights(rng, outputs),
    }
    x, y = _tensor("x", Dtype.FLOAT32, (features,)), _tensor("y", Dtype.FLOAT32, (outputs,))
    return _model("mlp", nodes, [x], [y], weights)


def scaled(seed: int, *, features: int) -> bytes:
    """Little work on much data: `x` [N, features] float32 to `y` of the same shape, each feature by a factor."""
    onnx = _onnx()
    factors = np.random.default_rng(seed).standard_normal(features).astype(np.float32)
    node = onnx.helper.make_node("Mul", ["x", "factors"], ["y"])
    x, y = _tensor("x", Dtype.FLOAT32, (features,)), _tensor("y", Dtype.FLOAT32, (features,))
    return _model("scaled", [node], [x], [y], {"factors": factors})


def identity(dtype: Dtype = Dtype.FLOAT32, dims: Sequence[int | None] = (None,)) -> bytes:
    """`x` to an equal `y`, both [N, *dims]; None is a dimension that varies. ONNX Runtime lacks the complex dtypes."""
    node = _onnx().helper.make_node("Identity", ["x"], ["y"])
    return _model("identity", [node], [_tensor("x", dtype, dims)], [_tensor("y", dtype, dims)], {})


def _onnx() -> ModuleType:
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise InvalidConfig(
            "making demo models needs the onnx package; install it with: pip install 'trtd[demo]'"
        ) from error
    return onnx


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    weights: np.ndarray = rng.standard_normal(shape) / np.sqrt(fan_in)
    return weights.astype(np.float32)


def _tensor(name: str, dtype: Dtype, dims: Sequence[int | None]) -> Any:
    onnx = _onnx()
    kind = getattr(onnx.TensorProto, ONNX_NAMES.get(dtype, dtype.value.upper()))
    # A varying dimension has a name in ONNX; the same one in inputs and outputs says that their sizes agree.
    shape = ["batch", *(f"d{axis}" if size is None else size for axis, size in enumerate(dims, start=1))]
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def _model(name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, np.ndarray]) -> bytes:
    onnx = _onnx()
    initializers = [onnx.numpy_helper.from_array(array, weight) for weight, array in weights.items()]
    graph = onnx.helper.make_graph(nodes, name, inputs, outputs, initializers)
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="trtd")
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
