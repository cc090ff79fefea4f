"""Models through ONNX Runtime on the CPU."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import onnx.helper
import pytest

from tests.support.worker import make_model_settings
from trtd.demo import models
from trtd.errors import InvalidConfig, ModelFailed, OutOfMemory
from trtd.runtime import onnxruntime as subject
from trtd.runtime import open_runtime
from trtd.runtime.areas import places
from trtd.wire.arenas import MIN_PLACED_BYTES
from trtd.wire.messages import Dtype, TensorContract
from trtd.wire.tensors import FLOAT8S, to_numpy


@pytest.fixture
def load(tmp_path):
    """Write a model and load it."""

    def load(data: bytes, **fields):
        path = tmp_path / "model.onnx"
        path.write_bytes(data)
        return open_runtime("onnxruntime", threads=1).load(make_model_settings(path, **fields))

    return load


def graph(nodes, inputs, outputs) -> bytes:
    made = onnx.helper.make_graph(nodes, "g", inputs, outputs)
    return onnx.helper.make_model(
        made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def value(name, shape, kind=onnx.TensorProto.FLOAT):
    return onnx.helper.make_tensor_value_info(name, kind, shape)


COMPLEX = {Dtype.COMPLEX64, Dtype.COMPLEX128}


@pytest.mark.parametrize("dtype", [dtype for dtype in Dtype if dtype not in COMPLEX | FLOAT8S.keys()])
def test_every_dtype_passes_unchanged(load, dtype):
    """Each dtype that ONNX Runtime has, bfloat16 included, is described as itself and keeps its bits in a batch."""
    model = load(models.identity(dtype, (3,)))
    assert model.description.inputs == (TensorContract("x", dtype, (None, 3)),)
    assert model.description.outputs == (TensorContract("y", dtype, (None, 3)),)
    bits = np.random.default_rng(1).integers(0, 2, 2 * 3 * to_numpy(dtype).itemsize, np.uint8)
    one = bits.view(to_numpy(dtype)).reshape(2, 3)
    two = one[:1]
    slot = model.open_slot()
    answers = [*slot.run([{"x": one}]), *slot.run([{"x": one}, {"x": two}])]
    for answer, sent in zip(answers, (one, one, two), strict=True):
        assert answer["y"].dtype == sent.dtype
        assert answer["y"].tobytes() == sent.tobytes()


@pytest.mark.parametrize("dtype", [Dtype.FLOAT32, Dtype.BFLOAT16])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 3)])
def test_no_elements_are_an_answer_too(load, dtype, shape):
    """Zero-size tensors go through and keep their shape."""
    slot = load(models.identity(dtype, (None,))).open_slot()
    (answer,) = slot.run([{"x": np.zeros(shape, to_numpy(dtype))}])
    assert answer["y"].shape == shape


def test_a_scalar_model_is_not_batched(load):
    """A model of 0-d tensors works, and its description says that requests run alone."""
    node = onnx.helper.make_node("Neg", ["x"], ["y"])
    model = load(graph([node], [value("x", ())], [value("y", ())]))
    assert not model.description.is_batched
    assert model.description.max_batch == 0
    assert model.open_slot().run([{"x": np.array(2, np.float32)}])[0]["y"] == -2


@pytest.mark.parametrize(
    ("inputs", "outputs", "is_batched"),
    [
        (("n", 4), ("n", 4), True),
        ((None, 4), (None, 4), True),
        ((None, 4), ("n", 4), True),
        (("n", 4), ("m", 4), True),
        ((1, 4), (1, 4), False),
        (("n", 4), (1, 4), False),
    ],
)
def test_batched_is_read_from_the_first_dimensions(load, inputs, outputs, is_batched):
    """A model may be batched when every first dimension varies, whatever its name; free ones are told as None."""
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    description = load(graph([node], [value("x", inputs)], [value("y", outputs)])).description
    assert description.is_batched is is_batched
    assert description.max_batch == (8 if is_batched else 0)
    assert description.inputs[0].shape == tuple(size if isinstance(size, int) else None for size in inputs)


def test_max_batch_1_switches_batching_off(load):
    """With `max_batch` 1 the description says that nothing is batched."""
    assert not load(models.mlp(1), max_batch=1).description.is_batched


@pytest.mark.parametrize("make", [models.cnn, models.mlp])
def test_a_batch_answers_as_its_requests_alone(load, make):
    """Demo models give each request of a batch the answer that it gets alone."""
    model = load(make(7))
    slot = model.open_slot()
    (contract,) = model.description.inputs
    rng = np.random.default_rng(2)
    requests = [
        {contract.name: rng.standard_normal((items, *contract.shape[1:])).astype(np.float32)} for items in (1, 3, 2)
    ]
    together = slot.run(requests)
    for request, answer in zip(requests, together, strict=True):
        (alone,) = slot.run([request])
        for name, array in alone.items():
            np.testing.assert_allclose(answer[name], array, rtol=1e-5, atol=1e-6)


def test_demo_models_come_from_their_seed():
    """The same seed gives the same bytes and another seed others."""
    assert models.cnn(1) == models.cnn(1) != models.cnn(2)
    assert models.mlp(1) == models.mlp(1) != models.mlp(2)


def test_an_output_that_is_not_per_item_fails_a_batch_but_not_a_lone_request(load):
    """A model that hides what it does with its items is refused in a batch, by name, and right alone."""
    nodes = [onnx.helper.make_node("NonZero", ["x"], ["n"]), onnx.helper.make_node("Transpose", ["n"], ["y"])]
    data = graph(nodes, [value("x", (None,))], [value("y", (None, 1), onnx.TensorProto.INT64)])
    model = load(data)
    assert model.description.is_batched
    request = {"x": np.array([0, 1], np.float32)}
    assert model.open_slot().run([request])[0]["y"].tolist() == [[1]]
    with pytest.raises(ModelFailed, match="'y'"):
        model.open_slot().run([request, request])


@pytest.mark.parametrize("dtype", [Dtype.FLOAT32, Dtype.BFLOAT16])
def test_what_the_model_refuses_is_one_line(load, dtype):
    """An input that ONNX Runtime refuses is a ModelFailed with its reason in one line, and the next run works."""
    slot = load(models.identity(dtype, (4,))).open_slot()
    kind = to_numpy(dtype)
    with pytest.raises(ModelFailed) as caught:
        slot.run([{"x": np.ones((1, 3), kind)}])
    assert "Got: 3 Expected: 4" in caught.value.message
    assert "\n" not in caught.value.message
    slot.run([{"x": np.ones((1, 4), kind)}])


def test_want_of_memory_is_told_apart(load):
    """A run that cannot get its memory is an OutOfMemory, and the next run works."""
    node = onnx.helper.make_node("Expand", ["x", "shape"], ["y"])
    data = graph([node], [value("x", (1,)), value("shape", (1,), onnx.TensorProto.INT64)], [value("y", ("n",))])
    slot = load(data).open_slot()
    x = np.ones(1, np.float32)
    with pytest.raises(OutOfMemory):
        slot.run([{"x": x, "shape": np.array([1 << 50])}])
    assert slot.run([{"x": x, "shape": np.array([3])}])[0]["y"].tolist() == [1, 1, 1]


def test_files_that_are_no_model_name_the_file(load, tmp_path):
    """A missing file, a damaged one and a directory are each refused in one line with the path."""
    runtime = open_runtime("onnxruntime", threads=1)
    with pytest.raises(InvalidConfig, match=r"nowhere\.onnx: no such file"):
        runtime.load(make_model_settings(tmp_path / "nowhere.onnx"))
    for broken in (lambda: load(b"no model"), lambda: load(models.cnn(1)[:500])):
        with pytest.raises(InvalidConfig) as caught:
            broken()
        assert "model.onnx" in caught.value.message
        assert "\n" not in caught.value.message
    with pytest.raises(InvalidConfig, match=str(tmp_path)):
        runtime.load(make_model_settings(tmp_path))


def test_strings_and_sequences_are_refused_by_name(load):
    """A model whose tensors do not travel is refused at load, naming the tensor and its type."""
    node = onnx.helper.make_node("Identity", ["words"], ["y"])
    string = onnx.TensorProto.STRING
    with pytest.raises(InvalidConfig, match=r"input 'words' is a tensor\(string\)"):
        load(graph([node], [value("words", ("n",), string)], [value("y", ("n",), string)]))
    split = onnx.helper.make_node("SplitToSequence", ["x"], ["parts"])
    sequence = onnx.helper.make_tensor_sequence_value_info("parts", onnx.TensorProto.FLOAT, None)
    with pytest.raises(InvalidConfig, match="no output travels: 'parts'"):
        load(graph([split], [value("x", ("n",))], [sequence]))


def test_warm_up_covers_one_and_max_batch(load):
    """Warm-up inputs fit the model as a batch of 1 and of `max_batch`; none is larger than the bound in bytes."""
    model = load(models.identity(Dtype.FLOAT32, (None, 5)), max_batch=4)
    shapes = [one["x"].shape for one in model.warm_up_inputs()]
    assert shapes == [(1, subject.WARM_UP_DIM, 5), (4, subject.WARM_UP_DIM, 5)]
    for inputs in model.warm_up_inputs():
        model.open_slot().run([inputs])
    big = load(models.identity(Dtype.FLOAT32, (1024, 1024)), max_batch=65_536)
    assert [one["x"].nbytes for one in big.warm_up_inputs()] == [4 * 1024 * 1024, subject.WARM_UP_BYTES]


def test_slots_share_a_session_from_several_threads(load):
    """Slots of one model, each in its own thread, give right answers side by side."""
    model = load(models.mlp(3))
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    expected = model.open_slot().run([{"x": x}])[0]["y"]
    wrong = []

    def work():
        slot = model.open_slot()
        wrong.extend(1 for _ in range(50) if not np.array_equal(slot.run([{"x": x}])[0]["y"], expected))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


WIDE = MIN_PLACED_BYTES // 4
"""As many float32 as are worth a place in an area."""


@pytest.fixture
def area():
    """Writable bytes, aligned as an area in an arena is."""
    block = np.zeros((1 << 20) + 64, np.uint8)
    start = -block.ctypes.data % 64
    return block[start : start + (1 << 20)]


def run_into(slot, request, area):
    """Run a request once, so that the shapes of its outputs are known, and then into the area."""
    slot.run_into(request, area, area.ctypes.data)
    return slot.run_into(request, area, area.ctypes.data)


def test_floats_are_written_into_the_area(load, area):
    """Large outputs of floats lie one after the other in the area, where the answer names them; others do not."""
    kinds = {"f": onnx.TensorProto.FLOAT, "i": onnx.TensorProto.INT64, "g": onnx.TensorProto.DOUBLE}
    nodes = [onnx.helper.make_node("Cast", ["x"], [name], to=kind) for name, kind in kinds.items()]
    outputs = [value(name, (None, WIDE), kind) for name, kind in kinds.items()]
    slot = load(graph(nodes, [value("x", (None, WIDE))], outputs)).open_slot()
    request = {"x": np.arange(2 * WIDE, dtype=np.float32).reshape(2, WIDE)}
    got = run_into(slot, request, area)
    for array in got.values():
        np.testing.assert_array_equal(array, request["x"])
    sizes = [got[name].nbytes for name in kinds]
    wanted = [area.ctypes.data + at for at in places(sizes, area.nbytes)]
    assert [got[name].ctypes.data for name in ("f", "g")] == [wanted[0], wanted[2]]
    assert not np.shares_memory(got["i"], area)


@pytest.mark.parametrize(("columns", "area_bytes"), [(WIDE - 1, 1 << 20), (WIDE, 4 * WIDE - 1), (WIDE, 0)])
def test_what_is_small_or_does_not_fit_is_not_written_there(load, area, columns, area_bytes):
    """Outputs below the least size, and those that the area cannot hold, are arrays of their own."""
    slot = load(models.identity(dims=(columns,))).open_slot()
    request = {"x": np.ones((1, columns), np.float32)}
    got = run_into(slot, request, area[:area_bytes])
    np.testing.assert_array_equal(got["y"], request["x"])
    assert not area.any()


def test_outputs_whose_shapes_depend_on_values_are_right(load, area):
    """As many numbers as are positive come back, each time; once they have varied, the area is not tried again."""
    nodes = [
        onnx.helper.make_node("Constant", [], ["zero"], value_float=0.0),
        onnx.helper.make_node("Greater", ["x", "zero"], ["positive"]),
        onnx.helper.make_node("Compress", ["x", "positive"], ["y"]),
    ]
    slot = load(graph(nodes, [value("x", (2 * WIDE,))], [value("y", (None,))]), max_batch=1).open_slot()
    for count in (2 * WIDE, WIDE, 3, 0, WIDE + 1, 2 * WIDE, 2 * WIDE):
        x = np.where(np.arange(2 * WIDE) < count, 1, -1).astype(np.float32)
        got = slot.run_into({"x": x}, area, area.ctypes.data)["y"]
        np.testing.assert_array_equal(got, np.ones(count, np.float32))
    assert not np.shares_memory(got, area)


def test_a_refused_value_does_not_end_the_short_way(load, area):
    """A request that the model refuses gets its error, and the next one is written into the area as before."""
    nodes = [
        onnx.helper.make_node("Constant", [], ["axis"], value_ints=[0]),
        onnx.helper.make_node("Unsqueeze", ["x", "axis"], ["rows"]),
        onnx.helper.make_node("Gather", ["rows", "index"], ["y"]),
    ]
    inputs = [value("x", (WIDE,)), value("index", (1,), onnx.TensorProto.INT64)]
    slot = load(graph(nodes, inputs, [value("y", (1, WIDE))])).open_slot()
    good = {"x": np.ones(WIDE, np.float32), "index": np.array([0])}
    run_into(slot, good, area)
    with pytest.raises(ModelFailed, match="out of data bounds"):
        slot.run_into({**good, "index": np.array([1])}, area, area.ctypes.data)
    assert np.shares_memory(slot.run_into(good, area, area.ctypes.data)["y"], area)


def test_unknown_runtimes_are_refused():
    """A name that is no runtime is refused with the names that are."""
    with pytest.raises(InvalidConfig, match="onnxruntime, scripted"):
        open_runtime("tensorflow", threads=1)
