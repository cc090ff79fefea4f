"""The models of one node with which the `onnx` package tests runtimes: each with inputs and the outputs that they give.

Releases of the package differ in how many they have, and older ones ship them as files; those of the installed one are
made anew by its own generator, in a process of its own, as that takes memory.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnx.numpy_helper import to_array

from tests.real.cases import Case, Tensors
from trtd.client.values import Tensor
from trtd.errors import UnsupportedDtype
from trtd.wire.messages import Dtype
from trtd.wire.tensors import FLOAT8S, Bits, bits_of, to_dtype, to_numpy, wrap

VARIATIONS = 5
"""Further requests for each model that would be joined."""


def make(directory: Path) -> list[Case]:
    """All of them, as files below the directory."""
    path = directory / "nodes.pickle"
    if not path.exists():
        program = "from tests.real.nodes import write; write()"
        subprocess.run([sys.executable, "-c", program, str(directory)], check=True)
    cases: list[Case] = pickle.loads(path.read_bytes())
    return cases


def write() -> None:
    """Generate them below the directory that the command line names."""
    directory = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

    (directory / "nodes").mkdir(parents=True, exist_ok=True)
    cases = []
    for one in collect_testcases(None):
        if one.model is None or not one.data_sets:
            continue
        path = directory / "nodes" / f"{one.name}.onnx"
        path.write_bytes(one.model.SerializeToString())
        inputs, outputs = one.data_sets[0]
        question = _named(one.model.graph.input, inputs)
        expected = _named(one.model.graph.output, outputs)
        cases.append(Case(one.name, str(path), [question], expected, one.rtol, max(one.atol, 1e-7)))
    (directory / "nodes.pickle").write_bytes(pickle.dumps(cases))


def _named(values: Sequence[Any], arrays: Sequence[Any]) -> dict[str, Tensor]:
    """Tensors by name; what does not travel is left out, and so are optional ones that are empty."""
    named: dict[str, Tensor] = {}
    for value, given in zip(values, arrays, strict=False):
        array = to_array(given) if isinstance(given, TensorProto) else given
        try:
            if isinstance(array, np.ndarray | np.generic):
                array = np.asarray(array)
                dtype = to_dtype(array.dtype)
                is_bits = dtype is Dtype.BFLOAT16 or dtype in FLOAT8S
                named[value.name] = wrap(dtype, array.view(to_numpy(dtype)) if is_bits else array)
        except UnsupportedDtype:
            continue
    return named


def loosened(cases: Sequence[Case], directory: Path) -> list[Case]:
    """The models whose tensors agree in their first dimension, with that one left open, as exporters leave a batch.

    For most of them that dimension is a batch in nothing but its name. Further requests have the same values in another
    order, which is in the range of the model's.
    """
    (directory / "loosened").mkdir(exist_ok=True)
    made = []
    for case in cases:
        model = onnx.load(case.path)
        shapes = [value.type.tensor_type.shape for value in (*model.graph.input, *model.graph.output)]
        firsts = {shape.dim[0].dim_value if shape.dim else 0 for shape in shapes}
        if len(firsts) != 1 or 0 in firsts or not model.graph.input:
            continue
        for shape in shapes:
            shape.dim[0].dim_param = "N"
        path = directory / "loosened" / Path(case.path).name
        path.write_bytes(model.SerializeToString())
        made.append(replace(case, path=str(path), questions=_varied(case.questions[0])))
    return made


def _varied(question: Tensors) -> list[Tensors]:
    rng = np.random.default_rng(7)
    return [question, *({name: _shuffled(one, rng) for name, one in question.items()} for _ in range(VARIATIONS))]


def _shuffled(tensor: Tensor, rng: np.random.Generator) -> Tensor:
    array = rng.permutation(bits_of(tensor).reshape(-1)).reshape(tensor.shape)
    return wrap(tensor.dtype, array) if isinstance(tensor, Bits) else array
