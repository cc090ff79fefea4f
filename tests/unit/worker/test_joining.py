"""Which models have their requests joined: those alone whose joined answers are shown to be the separate ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper
import pytest

from tests.support.graphs import FLOAT, INT64, graph, node, value
from tests.support.worker import make_model_settings, make_worker_settings
from trtd.core.batching import FORCED, OFF, PROVEN
from trtd.demo import models
from trtd.runtime import open_runtime
from trtd.wire.messages import Dtype
from trtd.worker.joining import Case, Neighbour, Subject, TooSlowError, layouts, objection, sizes_between
from trtd.worker.load import load

UINT8, BOOL = onnx.TensorProto.UINT8, onnx.TensorProto.BOOL
X, Y = [value("x", ("n", 4))], [value("y", ("n", 4))]
MIXED = np.random.default_rng(5).standard_normal((4, 4)).astype(np.float32)


@pytest.fixture
def described(tmp_path):
    """What is found out about an ONNX model."""

    def described(data: bytes, **fields: Any):
        path = tmp_path / "m.onnx"
        path.write_bytes(data)
        settings = make_worker_settings(make_model_settings(path, **fields), runtime="onnxruntime")
        return load(settings).catalogue.models[0].description

    return described


def chain(*nodes: Any, constants: dict[str, np.ndarray] | None = None, inputs: Any = X, outputs: Any = Y) -> bytes:
    return graph(nodes, inputs, outputs, constants)


def with_all(kind: str, weight: float = 1.0, **attributes: Any) -> bytes:
    """Each row and, times a weight, something of all rows."""
    return chain(
        node(kind, ["x"], ["of_all"], **attributes),
        node("Mul", ["of_all", "weight"], ["part"]),
        node("Add", ["x", "part"], ["y"]),
        constants={"weight": np.float32(weight)},
    )


JOINED = {
    "matrix": lambda: chain(node("MatMul", ["x", "w"], ["y"]), constants={"w": MIXED}),
    "softmax of each row": lambda: chain(node("Softmax", ["x"], ["y"], axis=1)),
    "first dimensions of different names": lambda: graph(
        [node("Relu", ["x"], ["y"])], [value("x", ("unk__214", 4))], [value("y", ("unk__215", 4))]
    ),
    "two inputs of different names": lambda: graph(
        [node("Add", ["a", "b"], ["y"])], [value("a", ("m", 4)), value("b", ("n", 4))], [value("y", ("k", 4))]
    ),
    "an index into each row": lambda: graph(
        [node("GatherElements", ["x", "i"], ["y"], axis=1)],
        [value("x", ("n", 4)), value("i", ("n", 2), INT64)],
        [value("y", ("n", 2))],
    ),
    "an embedding of forty tokens": lambda: graph(
        [node("Gather", ["table", "ids"], ["y"])],
        [value("ids", ("n", "t"), INT64)],
        [value("y", ("n", "t", 4))],
        {"table": np.random.default_rng(6).standard_normal((40, 4)).astype(np.float32)},
    ),
    "an embedding of two tokens": lambda: graph(
        [node("Gather", ["table", "ids"], ["y"])],
        [value("ids", ("n", "t"), INT64)],
        [value("y", ("n", "t", 4))],
        {"table": MIXED[:2]},
    ),
    "a class of each row": lambda: graph(
        [node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)], X, [value("y", ("n",), INT64)]
    ),
    "a threshold that few pass, and a class": lambda: graph(
        [node("Greater", ["x", "age"], ["g"]), node("Cast", ["g"], ["y"], to=INT64)],
        X,
        [value("y", ("n", 4), INT64)],
        {"age": np.float32(60)},
    ),
    "little beside a large number": lambda: chain(
        node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "b"], ["y"]), constants={"w": MIXED, "b": np.float32(1e3)}
    ),
    "a number that is the same in each row": lambda: chain(
        node("Mul", ["x", "w"], ["y"]), constants={"w": np.array([0, 1, 1, 1], np.float32)}
    ),
    "what makes infinities": lambda: chain(
        node("Mul", ["x", "w"], ["a"]), node("Exp", ["a"], ["y"]), constants={"w": np.float32(1000)}
    ),
    "what is not a number for some": lambda: chain(node("Log", ["x"], ["y"])),
    "images of bytes": lambda: graph(
        [node("Cast", ["x"], ["f"], to=FLOAT), node("Conv", ["f", "w"], ["c"]), node("Softmax", ["c"], ["y"], axis=1)],
        [value("x", ("n", 3, "h", "w"), UINT8)],
        [value("y", ("n", 8, "h2", "w2"))],
        {"w": np.random.default_rng(6).standard_normal((8, 3, 3, 3)).astype(np.float32)},
    ),
    "cnn": lambda: models.cnn(1),
    "mlp": lambda: models.mlp(1),
    "bfloat16": lambda: models.identity(Dtype.BFLOAT16, (4,)),
    "bool": lambda: models.identity(Dtype.BOOL, (4,)),
    "uint8": lambda: models.identity(Dtype.UINT8, (None, 3)),
}


def scaled_by_all(kind: int) -> bytes:
    """Whole numbers of many columns by the largest of all: in a long row each number of a range occurs."""
    return graph(
        [node("Cast", ["x"], ["f"], to=FLOAT), node("ReduceMax", ["f"], ["m"], keepdims=0),
         node("Div", ["f", "m"], ["d"]), node("MatMul", ["d", "w"], ["y"])],
        [value("x", ("n", 256), kind)], [value("y", ("n", 4))],
        {"w": np.random.default_rng(6).standard_normal((256, 4)).astype(np.float32)},
    )  # fmt: skip


def mixed_when(*nodes: Any, constants: dict[str, np.ndarray]) -> bytes:
    """All rows get the mean of all when `c` says so."""
    mix = [node("ReduceMean", ["x"], ["m"], axes=[0]), node("Add", ["x", "m"], ["mixed"])]
    then = onnx.helper.make_graph(mix, "then", [], [value("mixed", (None, 4))])
    other = onnx.helper.make_graph([node("Identity", ["x"], ["kept"])], "else", [], [value("kept", (None, 4))])
    shape = [node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"])]
    both = node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    return chain(*shape, *nodes, both, constants={"zero": np.int64(0), **constants})


def mixed_from_to(least: int, most: int) -> bytes:
    """All rows get the mean of all in batches of so many."""
    return mixed_when(
        node("GreaterOrEqual", ["n", "least"], ["a"]), node("LessOrEqual", ["n", "most"], ["b"]),
        node("And", ["a", "b"], ["c"]),
        constants={"least": np.int64(least), "most": np.int64(most)},
    )  # fmt: skip


def with_row_numbers(scale: float) -> bytes:
    """The number of each row, as detectors of objects give it, beside large numbers."""
    return graph(
        [node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]), node("Range", ["zero", "n", "one"], ["r"]),
         node("Cast", ["r"], ["f"], to=FLOAT), node("Unsqueeze", ["f", "axis"], ["rows"]),
         node("Mul", ["x", "scale"], ["boxes"]), node("Concat", ["rows", "boxes"], ["y"], axis=1)],
        X, [value("y", ("n", 5))],
        {"zero": np.int64(0), "one": np.int64(1), "axis": np.array([1]), "scale": np.float32(scale)},
    )  # fmt: skip


ALONE = {
    "bytes by the largest of all": (lambda: scaled_by_all(UINT8), "output 'y'"),
    "whole numbers by the largest of all": (lambda: scaled_by_all(INT64), "output 'y'"),
    "largest of all whole numbers from 100 on": (
        lambda: graph(
            [node("ReduceMax", ["x"], ["m"], axes=[0]), node("Sub", ["m", "least"], ["d"]),
             node("Max", ["d", "zero"], ["more"]), node("Add", ["x", "more"], ["y"])],
            [value("x", ("n", 4), INT64)], [value("y", ("n", 4), INT64)], {"least": np.int64(100), "zero": np.int64(0)},
        ),
        "depends on the requests",
    ),
    "bools and whether any is set": (
        lambda: graph(
            [node("Cast", ["x"], ["f"], to=FLOAT), node("ReduceMax", ["f"], ["m"], keepdims=0),
             node("MatMul", ["f", "w"], ["own"]), node("Add", ["own", "m"], ["y"])],
            [value("x", ("n", 256), BOOL)], [value("y", ("n", 4))],
            {"w": np.random.default_rng(6).standard_normal((256, 4)).astype(np.float32)},
        ),
        "output 'y'",
    ),
    "scale of all bytes": (
        lambda: graph(
            [node("Cast", ["x"], ["f"], to=FLOAT), node("DynamicQuantizeLinear", ["f"], ["q", "scale", "zero"]),
             node("MatMulInteger", ["q", "w", "zero"], ["i"]), node("Cast", ["i"], ["g"], to=FLOAT),
             node("Mul", ["g", "scale"], ["y"])],
            [value("x", ("n", 64), UINT8)], [value("y", ("n", 8))],
            {"w": np.random.default_rng(6).integers(0, 255, (64, 8)).astype(np.uint8)},
        ),
        "output 'y'",
    ),
    "largest of all where outputs saturate": (
        lambda: chain(
            node("Mul", ["x", "steep"], ["p"]), node("ReduceMax", ["p"], ["m"], axes=[0]),
            node("Clip", ["m", "lo", "hi"], ["mc"]), node("Add", ["p", "mc"], ["s"]),
            node("Clip", ["s", "lo", "hi"], ["y"]),
            constants={"steep": np.float32(1e4), "lo": np.float32(-1), "hi": np.float32(1)},
        ),
        "output 'y'",
    ),
    "mean of all while all are small": (
        lambda: mixed_when(
            node("Abs", ["x"], ["a"]), node("ReduceMax", ["a"], ["m1"], keepdims=0),
            node("Less", ["m1", "half"], ["c"]),
            constants={"half": np.float32(0.5)},
        ),
        "output 'y'",
    ),
    "mean of all in batches of 4 and 5": (lambda: mixed_from_to(4, 5), "not what each gets alone"),
    "mean of all in batches of 8 to 12": (lambda: mixed_from_to(8, 12), "not what each gets alone"),
    "nothing of all, but for infinities": (
        lambda: chain(
            node("Shape", ["x"], ["s"]), node("Slice", ["s", "axis", "one"], ["n1"]),
            node("Concat", ["n1", "n1"], ["nn"], axis=0), node("ConstantOfShape", ["nn"], ["square"]),
            node("EyeLike", ["square"], ["unit"]), node("MatMul", ["unit", "x"], ["y"]),
            constants={"axis": np.array([0]), "one": np.array([1])},
        ),
        "depends on the requests",
    ),
    "rows that are left out for their values": (
        lambda: chain(
            node("ReduceSum", ["x", "axis"], ["sum"], keepdims=0), node("Greater", ["sum", "least"], ["c"]),
            node("Compress", ["x", "c"], ["y"], axis=0),
            constants={"axis": np.array([1]), "least": np.float32(-1000)},
        ),
        "joined requests fail",
    ),
    "the number of its row": (lambda: with_row_numbers(640.0), "not what each gets alone"),
    "softmax over all rows": (lambda: chain(node("Softmax", ["x"], ["y"], axis=0)), "not what each gets alone"),
    "queries and keys": (
        lambda: graph(
            [node("Transpose", ["k"], ["t"]), node("MatMul", ["q", "t"], ["y"])],
            [value("q", (None, 8)), value("k", (None, 8))],
            [value("y", (None, None))],
        ),
        "not what each gets alone",
    ),
    "mean of all rows": (lambda: with_all("ReduceMean", axes=[0]), "not what each gets alone"),
    "a little of the mean": (lambda: with_all("ReduceMean", 1e-6, axes=[0]), "depends on the requests"),
    "largest of all": (lambda: with_all("ReduceMax", 1e-3, axes=[0]), "output 'y'"),
    "least of all": (lambda: with_all("ReduceMin", 1e-3, axes=[0]), "output 'y'"),
    "running sum": (
        lambda: chain(node("CumSum", ["x", "axis"], ["y"]), constants={"axis": np.int64(0)}),
        "not what each gets alone",
    ),
    "running sum from the end": (
        lambda: chain(node("CumSum", ["x", "axis"], ["y"], reverse=1), constants={"axis": np.int64(0)}),
        "not what each gets alone",
    ),
    "bounded part of all": (
        lambda: chain(
            node("Tanh", ["x"], ["t"]),
            node("ReduceMean", ["t"], ["m"], axes=[0]),
            node("Mul", ["m", "weight"], ["part"]),
            node("Tanh", ["x"], ["own"]),
            node("Add", ["own", "part"], ["y"]),
            constants={"weight": np.float32(1e-4)},
        ),
        "depends on the requests",
    ),
    "scale of all": (
        lambda: chain(
            node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ),
        "output 'y'",
    ),
    "first row of all": (
        lambda: chain(
            node("Slice", ["x", "zero", "one"], ["first"]),
            node("Sub", ["x", "first"], ["d"]),
            node("Add", ["d", "x"], ["y"]),
            constants={"zero": np.array([0]), "one": np.array([1])},
        ),
        "not what each gets alone",
    ),
    "rows in reverse": (
        lambda: chain(
            node("Slice", ["x", "last", "first", "axis", "back"], ["y"]),
            constants={
                "last": np.array([-1]),
                "first": np.array([-(2**31)]),
                "axis": np.array([0]),
                "back": np.array([-1]),
            },
        ),
        "not what each gets alone",
    ),
    "sorted rows": (
        lambda: graph(
            [node("TopK", ["x", "k"], ["v", "i"], axis=1), node("Shape", ["x"], ["s"]), *[
                node("Gather", ["s", "zero"], ["n"]),
                node("Unsqueeze", ["n", "axis"], ["count"]),
                node("TopK", ["x", "count"], ["y", "j"], axis=0),
            ]],
            X,
            Y,
            {"k": np.array([1]), "zero": np.int64(0), "axis": np.array([0])},
        ),
        "not what each gets alone",
    ),
    "statistics of all rows": (
        lambda: chain(
            node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y", "rm", "rv"], training_mode=1),
            constants={"s": np.ones(4, np.float32), "b": np.zeros(4, np.float32), "m": np.zeros(4, np.float32),
                       "v": np.ones(4, np.float32)},
        ),
        "output 'y'",
    ),
    "what is not zero": (
        lambda: graph(
            [node("NonZero", ["x"], ["i"]), node("Transpose", ["i"], ["y"])], X, [value("y", (None, 2), INT64)]
        ),
        "has shape",
    ),
    "noise": (
        lambda: chain(node("RandomNormalLike", ["x"], ["r"]), node("Add", ["x", "r"], ["y"])),
        "differs from run to run",
    ),
    "always the same": (
        lambda: chain(node("Mul", ["x", "zero"], ["y"]), constants={"zero": np.float32(0)}),
        "is the same for all that was made up",
    ),
    "a neighbour's row by its number": (
        lambda: graph(
            [node("Gather", ["x", "i"], ["y"])], [value("x", ("n", 4)), value("i", ("n",), INT64)], Y
        ),
        "not what each gets alone",
    ),
    "a sequence in time": (
        lambda: graph(
            [node("RNN", ["x", "w", "r"], ["all"], hidden_size=4), node("Squeeze", ["all", "axis"], ["y"])],
            [value("x", ("t", "b", 4))],
            [value("y", ("t", "b", 4))],
            {"w": MIXED[None], "r": MIXED[None], "axis": np.array([1])},
        ),
        "not what each gets alone",
    ),
    "fixed batch": (
        lambda: graph([node("Relu", ["x"], ["y"])], [value("x", (8, 4))], [value("y", (8, 4))]),
        "the first dimension of input 'x' is always 8",
    ),
    "fixed output": (
        lambda: graph([node("ReduceSum", ["x", "axis"], ["y"])], X, [value("y", (1, 4))], {"axis": np.array([0])}),
        "the first dimension of output 'y' is always 1",
    ),
    "scalar": (
        lambda: graph([node("Neg", ["x"], ["y"])], [value("x", ())], [value("y", ())]), "input 'x' has no dimensions"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JOINED)
def test_models_of_separate_items_are_proven(described, name):
    """Models that treat each item by itself are joined, however their dimensions are called and whatever ints mean."""
    description = described(JOINED[name](), max_batch=16)
    assert (description.batching, description.is_batched, description.max_batch) == (PROVEN, True, 16)


@pytest.mark.parametrize("name", ALONE)
def test_models_that_look_at_other_rows_run_alone(described, name):
    """Whatever mixes rows, depends on their order or number, or shows nothing, is not joined, and says why."""
    make, reason = ALONE[name]
    description = described(make(), max_batch=16)
    assert (description.is_batched, description.max_batch) == (False, 0)
    assert description.batching.startswith("alone: ")
    assert reason in description.batching


@pytest.mark.parametrize("max_batch", [2, 3, 5, 7, 8, 64])
def test_small_batches_show_it_as_well(described, max_batch):
    """With any `max_batch` a sound model is joined, and one that leaks a millionth of a neighbour is not."""
    assert described(models.mlp(1), max_batch=max_batch).batching == PROVEN
    assert not described(with_all("ReduceMean", 1e-6, axes=[0]), max_batch=max_batch).is_batched


def test_operators_decide(described):
    """`always` joins without a look, where the shapes allow it, `off` never does, and neither does a batch of one."""
    mixing = chain(node("Softmax", ["x"], ["y"], axis=0))
    assert described(mixing, batching="always").batching == FORCED
    assert described(mixing, batching="off").batching == OFF
    assert described(models.mlp(1), batching="off").batching == OFF
    assert described(models.mlp(1), max_batch=1).batching == OFF
    fixed = graph([node("Relu", ["x"], ["y"])], [value("x", (8, 4))], [value("y", (8, 4))])
    assert described(fixed, batching="always").batching.startswith("alone: ")


@pytest.mark.parametrize("most", [*range(2, 40), 1000])
def test_layouts_fit_and_reach_the_largest_batch(most):
    """No batch is larger than allowed, one is as large, and subjects stand first, last and between others."""
    items = {Subject(0): 1, Subject(1): 2, Subject(2): 3}
    made = [*layouts(most), *sizes_between(most)]
    sums = [sum(one.items if isinstance(one, Neighbour) else items[one] for one in layout) for layout in made]
    assert max(sums) == most
    assert isinstance(made[0][0], Subject)
    assert isinstance(made[1][-1], Subject)
    assert all(items[one] <= most for layout in made for one in layout if isinstance(one, Subject))
    assert all(one.items > 0 for layout in made for one in layout if isinstance(one, Neighbour))


class Shaky:
    """A slot that adds noise to what another one answers, so large relative to it."""

    def __init__(self, slot: Any, noise: float) -> None:
        self._slot = slot
        self._noise = noise
        self._random = np.random.default_rng(1)

    def settle(self, request: Any) -> None:
        self.run([request])

    def run(self, requests: Any) -> Any:
        answers = [dict(one) for one in self._slot.run(requests)]
        for answer in answers:
            noise = 1 + self._noise * self._random.standard_normal(answer["y"].shape)
            answer["y"] = (answer["y"] * noise).astype(np.float32)
        return answers


def test_a_device_that_adds_up_in_any_order_is_no_objection(tmp_path):
    """Answers that differ in the last digits for the very same batch are the same; those that differ more are not."""
    path = tmp_path / "m.onnx"
    path.write_bytes(models.mlp(1))
    model = open_runtime("onnxruntime", threads=1).load(make_model_settings(path))
    case = Case(model.warm_up_inputs()[0], False, 8)
    assert objection(Shaky(model.open_slot(), 1e-5), model.description, case) is None
    assert "run to run" in str(objection(Shaky(model.open_slot(), 0.5), model.description, case))


def test_a_slow_model_is_given_up(tmp_path):
    """Before each run it is asked whether there is time, and where there is none nothing more is run."""
    path = tmp_path / "m.onnx"
    path.write_bytes(models.mlp(1))
    model = open_runtime("onnxruntime", threads=1).load(make_model_settings(path))
    case = Case(model.warm_up_inputs()[0], False, 8)
    asked: list[bool] = []

    def is_late() -> bool:
        asked.append(len(asked) == 5)
        return asked[-1]

    with pytest.raises(TooSlowError):
        objection(model.open_slot(), model.description, case, is_late)
    assert asked == [False] * 5 + [True]


class Rounding:
    """A slot that rounds as a device does that chooses other code for each size of a batch: relative to the inputs."""

    def __init__(self, slot: Any) -> None:
        self._slot = slot

    def settle(self, request: Any) -> None:
        self.run([request])

    def run(self, requests: Any) -> Any:
        is_odd = sum(len(one["x"]) for one in requests) % 2
        return self._slot.run([{"x": one["x"] * np.float32(1 + 3e-4 * is_odd)} for one in requests])


def test_rounding_that_large_numbers_let_decide_is_no_objection(tmp_path):
    """The sine of some hundreds turns rounding into another answer; that says nothing of other requests."""
    path = tmp_path / "m.onnx"
    path.write_bytes(
        chain(node("Mul", ["x", "steep"], ["z"]), node("Sin", ["z"], ["y"]), constants={"steep": np.float32(5)})
    )
    model = open_runtime("onnxruntime", threads=1).load(make_model_settings(path))
    case = Case(model.warm_up_inputs()[0], False, 8)
    assert objection(Rounding(model.open_slot()), model.description, case) is None


def test_bytes_that_are_given_do_not_hide_the_largest_of_all(tmp_path):
    """What is made up of a given image has items of ranges of their own, so that their largest bytes differ."""
    pixels = np.random.default_rng(2).integers(0, 256, (1, 256)).astype(np.uint8)
    path = tmp_path / "m.onnx"
    path.write_bytes(scaled_by_all(UINT8))
    model = open_runtime("onnxruntime", threads=1).load(make_model_settings(path))
    told = objection(model.open_slot(), model.description, Case({"x": pixels}, True, 8))
    assert "output 'y'" in str(told)


def test_what_is_given_tells_the_range(described, tmp_path):
    """A model that takes few values only is shown by those that an operator gives, or by the order of rows of these."""
    # Each whole number is an index from the end: others than -1 to -4 are out of range, and none of these is made up.
    nodes = [node("Add", ["ids", "shift"], ["i"]), node("Gather", ["table", "i"], ["y"])]
    data = graph(nodes, [value("ids", ("n",), INT64)], Y, {"table": MIXED, "shift": np.int64(-1000)})
    assert "it refuses what was made up" in described(data).batching
    given = tmp_path / "given.npz"
    np.savez(given, **{"in.ids": np.array([1000, 1001, 1002, 1003])})
    assert described(data, warm_up_inputs=(str(given),)).batching == PROVEN
