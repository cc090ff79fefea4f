"""ONNX models for tests, each a few nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.helper

FLOAT = onnx.TensorProto.FLOAT


def value(name: str, shape: Sequence[Any] | None, kind: int = FLOAT) -> Any:
    """An input or output; None for a shape that is not said."""
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    """One node."""
    return onnx.helper.make_node(op, inputs, outputs, **attributes)


def make_model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    opset: int = 17,
    ir_version: int = 8,
    **weights: np.ndarray,
) -> bytes:
    """A model; `weights` are initializers, and defaults where they are inputs too."""
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=ir_version).SerializeToString()


def listed_twice() -> bytes:
    """`x` to `y`, which stands twice among the outputs."""
    return make_model([node("Neg", ["x"], ["y"])], [value("x", [None, 4])], [value("y", [None, 4])] * 2)


def of_any_rank() -> bytes:
    """`x` to `y` without a word about their shapes."""
    return make_model([node("Neg", ["x"], ["y"])], [value("x", None)], [value("y", None)])


def scaled() -> bytes:
    """`x` times `w`, which is 2, 2, 2, 2 where nobody gives another."""
    return make_model(
        [node("Mul", ["x", "w"], ["y"])],
        [value("x", [None, 4]), value("w", [4])],
        [value("y", [None, 4])],
        w=np.full(4, 2, np.float32),
    )


def decoder(layers: int, name_bytes: int = 0) -> bytes:
    """A decoder that only counts: `x`, and two tensors of the past for each layer, each given back plus `x`."""
    names = [f"{layer}.{part}".ljust(name_bytes, "_") for layer in range(layers) for part in ("key", "value")]
    nodes = [node("Add", ["x", f"past.{name}"], [f"present.{name}"]) for name in names]
    return make_model(
        [*nodes, node("Neg", ["x"], ["logits"])],
        [value("x", [1]), *(value(f"past.{name}", ["n", "m"]) for name in names)],
        [value("logits", [1]), *(value(f"present.{name}", ["n", "m"]) for name in names)],
    )


def with_words() -> bytes:
    """`x` to `y` as a tensor, and to `label`, which are strings, and `all`, a sequence."""
    nodes = [
        node("Neg", ["x"], ["y"]),
        node("Cast", ["x"], ["label"], to=onnx.TensorProto.STRING),
        node("SequenceConstruct", ["x"], ["all"]),
    ]
    sequence = onnx.helper.make_tensor_sequence_value_info("all", FLOAT, None)
    outputs = [value("label", [None, 4], onnx.TensorProto.STRING), value("y", [None, 4]), sequence]
    return make_model(nodes, [value("x", [None, 4])], outputs)


def only_words() -> bytes:
    """`x` to strings, and nothing else."""
    cast = node("Cast", ["x"], ["label"], to=onnx.TensorProto.STRING)
    return make_model([cast], [value("x", [None, 4])], [value("label", [None, 4], onnx.TensorProto.STRING)])


def from_words() -> bytes:
    """Strings to whole numbers."""
    cast = node("Cast", ["words"], ["y"], to=onnx.TensorProto.INT64)
    return make_model(
        [cast], [value("words", [None], onnx.TensorProto.STRING)], [value("y", [None], onnx.TensorProto.INT64)]
    )


def through(kind: int) -> bytes:
    """`x` as an element type, to `wide` as float32, and back to `y`."""
    nodes = [node("Cast", ["x"], ["wide"], to=FLOAT), node("Cast", ["wide"], ["y"], to=kind)]
    outputs = [value("wide", [None, 4]), value("y", [None, 4], kind)]
    return make_model(nodes, [value("x", [None, 4], kind)], outputs, opset=24, ir_version=12)


def half_wrong() -> bytes:
    """`x` and a shape to `y`, and to `z`, which is `x` in that shape: not every shape will do."""
    nodes = [node("Neg", ["x"], ["y"]), node("Reshape", ["x", "shape"], ["z"])]
    inputs = [value("x", [None, 4]), value("shape", [20], onnx.TensorProto.INT64)]
    return make_model(nodes, inputs, [value("y", [None, 4]), value("z", None)])
