"""What a model of ONNX Runtime is said to take and to give, and what it gives when only a part is asked for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.support import onnx_models
from tests.support.onnx_models import make_model, node, value
from tests.support.worker import make_model_settings
from trtd.errors import InvalidConfig
from trtd.runtime import open_runtime
from trtd.runtime.inputs import Inputs, Layout
from trtd.runtime.onnxruntime import BITS, BitsSlot
from trtd.wire.arenas import MIN_PLACED_BYTES
from trtd.wire.messages import Dtype, TensorContract, Unserved
from trtd.wire.tensors import Float8, bits_of, spec_of, to_frame

ROW = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.fixture
def load(tmp_path):
    """Write a model and load it."""

    def load(data: bytes, **fields):
        path = tmp_path / "model.onnx"
        path.write_bytes(data)
        return open_runtime("onnxruntime", threads=1).load(make_model_settings(path, **fields))

    return load


def ask(*outputs: str, **inputs: np.ndarray) -> Inputs:
    """One request as a worker has it."""
    specs = tuple(spec_of(name, array) for name, array in inputs.items())
    return Inputs(Layout(specs, 1, outputs or None), [to_frame(array) for array in inputs.values()])


def test_an_output_that_is_listed_twice_is_given_once(load):
    """No answer could name it twice."""
    model = load(onnx_models.listed_twice())
    assert model.description.outputs == (TensorContract("y", Dtype.FLOAT32, (None, 4)),)
    assert list(model.open_slot().run([ask(x=ROW)])[0]) == ["y"]


def test_no_shape_is_any_shape_and_no_dimensions_are_a_scalar(load):
    """The file tells them apart, where the session says the same of both."""
    description = load(onnx_models.of_any_rank()).description
    assert (description.inputs[0].shape, description.outputs[0].shape) == (None, None)
    assert not description.is_batched
    scalar = make_model([node("Neg", ["x"], ["y"])], [value("x", [])], [value("y", [])])
    description = load(scalar).description
    assert (description.inputs[0].shape, description.outputs[0].shape) == ((), ())


def test_inputs_with_a_default_may_be_given(load):
    """They are told apart from those that every request has, and what is given counts for that request alone."""
    model = load(onnx_models.scaled())
    assert [one.name for one in model.description.inputs] == ["x"]
    assert model.description.optional_inputs == (TensorContract("w", Dtype.FLOAT32, (4,)),)
    assert model.description.is_batched
    slot = model.open_slot()
    other = np.full(4, 3, np.float32)
    assert slot.run([ask(x=ROW)])[0]["y"].tolist() == (2 * ROW).tolist()
    assert slot.run([ask(x=ROW, w=other)])[0]["y"].tolist() == (3 * ROW).tolist()
    assert slot.run([ask(x=ROW)])[0]["y"].tolist() == (2 * ROW).tolist()


def test_a_default_is_not_what_was_given_before(load):
    """Also where outputs are written into a client's memory by a binding that is kept from run to run."""
    model = load(onnx_models.scaled())
    slot = model.open_slot()
    rows = np.ones((MIN_PLACED_BYTES // 16, 4), np.float32)
    area = np.zeros(rows.nbytes, np.uint8)
    for _ in range(3):
        for factor in (None, 5.0):
            given = {"x": rows} if factor is None else {"x": rows, "w": np.full(4, factor, np.float32)}
            got = slot.run_into(ask(**given), area, area.ctypes.data)["y"]
            assert set(np.unique(got)) == {2.0 if factor is None else factor}


def test_outputs_that_do_not_travel_are_left_out(load):
    """Strings and sequences are named with the reason, and the tensors beside them are served."""
    model = load(onnx_models.with_words())
    assert [one.name for one in model.description.outputs] == ["y"]
    assert model.description.unserved == (
        Unserved("label", "is a tensor(string), which does not travel"),
        Unserved("all", "is a seq(tensor(float)), which does not travel"),
    )
    assert model.description.is_batched
    assert list(model.open_slot().run([ask(x=ROW)])[0]) == ["y"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (onnx_models.only_words(), "no output travels: 'label' is a tensor(string), which does not travel"),
        (onnx_models.from_words(), "input 'words' is a tensor(string), which does not travel"),
        (onnx_models.through(onnx.TensorProto.INT4), "input 'x' is a tensor(int4), which does not travel"),
    ],
)
def test_what_no_request_could_use_is_refused(load, data, text):
    """A model without an output that travels, or with an input that does not, is refused with the name and type."""
    with pytest.raises(InvalidConfig) as caught:
        load(data)
    assert text in caught.value.message


@pytest.mark.parametrize("names", [("z",), ("y",), ("z", "y")])
def test_only_the_wanted_outputs_are_given(load, names):
    """In the order in which they were asked for, in frames and in a client's memory alike."""
    rows = np.ones((MIN_PLACED_BYTES // 16, 4), np.float32)
    nodes = [node("Neg", ["x"], ["y"]), node("Abs", ["x"], ["z"])]
    data = make_model(nodes, [value("x", [None, 4])], [value("y", [None, 4]), value("z", [None, 4])])
    slot = load(data).open_slot()
    expected = {"y": -rows, "z": rows}
    area = np.zeros(2 * rows.nbytes, np.uint8)
    for _ in range(3):
        for got in (slot.run([ask(*names, x=rows)])[0], slot.run_into(ask(*names, x=rows), area, area.ctypes.data)):
            assert list(got) == list(names)
            for name in names:
                np.testing.assert_array_equal(got[name], expected[name])
        every = slot.run_into(ask(x=rows), area, area.ctypes.data)
        assert {name: array.tolist() for name, array in every.items()} == {
            name: array.tolist() for name, array in expected.items()
        }


@pytest.mark.parametrize("dtype", [dtype for dtype in BITS if dtype is not Dtype.BFLOAT16])
def test_float8_comes_and_goes_as_its_bits(load, dtype):
    """What ONNX Runtime makes of the bits is what trtd says that they are, and they come back unchanged."""
    model = load(onnx_models.through(BITS[dtype]))
    assert model.description.inputs == (TensorContract("x", dtype, (None, 4)),)
    slot = model.open_slot()
    assert isinstance(slot, BitsSlot)
    sent = Float8(np.arange(0, 64, 4, dtype=np.uint8).reshape(4, 4) + 40, dtype)
    (answer,) = slot.run([{"x": bits_of(sent)}])
    np.testing.assert_array_equal(answer["wide"], sent.to_float32())
    assert answer["y"].tobytes() == sent.bits.tobytes()
    assert answer["y"].dtype == np.uint8
