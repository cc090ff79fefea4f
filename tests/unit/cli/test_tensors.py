"""Inputs for `trtd infer` and `trtd bench`, what is printed of outputs, and the figures of a bench."""

from __future__ import annotations

import numpy as np
import pytest

from trtd.cli import bench, infer
from trtd.cli.tensors import make_inputs
from trtd.client import BFloat16, Float8
from trtd.errors import ErrorCode, InvalidInput, Usage
from trtd.wire.messages import Dtype, ModelDescription, TensorContract


def make_model(dtype: Dtype = Dtype.FLOAT32, shape: tuple[int | None, ...] = (None, 3)) -> ModelDescription:
    return ModelDescription("m", "1", (TensorContract("x", dtype, shape),), (), True, 8)


@pytest.mark.parametrize("dtype", list(Dtype))
@pytest.mark.parametrize("source", ["random", "zeros", "ones"])
def test_inputs_of_every_dtype_are_made(dtype, source):
    """Each dtype can be generated, in the shape that the model names."""
    x = make_inputs(make_model(dtype), [f"x={source}"], [])["x"]
    assert x.shape == (1, 3)
    if isinstance(x, BFloat16 | Float8):
        assert x.dtype is dtype
        x = x.to_float32()
    else:
        assert isinstance(x, np.ndarray)
        assert x.dtype == dtype.value
    # This one has neither a zero nor a sign, and its least number stands for one.
    if source != "random" and (dtype, source) != (Dtype.FLOAT8_E8M0FNU, "zeros"):
        assert (x == (source == "ones")).all()


def test_shapes():
    """Dimensions that vary are 1, the first one the batch, all of them as --shape says."""
    model = make_model(shape=(None, 3, None))
    assert make_inputs(model, [], [])["x"].shape == (1, 3, 1)
    assert make_inputs(model, [], [], batch=4)["x"].shape == (4, 3, 1)
    assert make_inputs(model, [], ["x=2,3,0"])["x"].shape == (2, 3, 0)
    assert make_inputs(make_model(shape=(2, 3)), [], [], batch=4)["x"].shape == (2, 3)
    assert make_inputs(make_model(shape=()), [], [])["x"].shape == ()


def test_files(tmp_path):
    """A .npy file is sent as it is; for bfloat16, bits are taken as bits and numbers are rounded."""
    np.save(tmp_path / "x.npy", np.arange(3, dtype=np.int16))
    x = make_inputs(make_model(), [f"x={tmp_path}/x.npy"], [])["x"]
    np.testing.assert_array_equal(x, np.arange(3, dtype=np.int16))
    np.save(tmp_path / "bits.npy", np.array([0x3F80], dtype=np.uint16))
    np.save(tmp_path / "numbers.npy", np.array([1.0]))
    for name in ("bits", "numbers"):
        x = make_inputs(make_model(Dtype.BFLOAT16), [f"x={tmp_path}/{name}.npy"], [])["x"]
        assert isinstance(x, BFloat16)
        assert x.to_float32() == [1.0]


def test_float8_files(tmp_path):
    """Bits are taken as bits and numbers are rounded."""
    np.save(tmp_path / "bits.npy", np.array([0x38], dtype=np.uint8))
    np.save(tmp_path / "numbers.npy", np.array([1.01]))
    for name in ("bits", "numbers"):
        x = make_inputs(make_model(Dtype.FLOAT8_E4M3FN), [f"x={tmp_path}/{name}.npy"], [])["x"]
        assert isinstance(x, Float8)
        assert x.to_float32() == [1.0]


def test_inputs_with_a_default_are_made_where_they_are_named():
    """Otherwise the model's own is taken; shapes that nobody knows have one dimension."""
    optional = (TensorContract("w", Dtype.FLOAT32, (2,)),)
    model = ModelDescription("m", "1", (TensorContract("x", Dtype.FLOAT32, None),), (), False, 0, optional)
    assert {name: x.shape for name, x in make_inputs(model, [], []).items()} == {"x": (1,)}
    assert {name: x.shape for name, x in make_inputs(model, ["w=ones"], []).items()} == {"x": (1,), "w": (2,)}


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x80\x04N."])
def test_files_that_are_no_arrays(tmp_path, content):
    """A file that is no array of numbers is refused with its name, and never unpickled."""
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"input 'x': .*x\.npy cannot be read"):
        make_inputs(make_model(), [f"x={tmp_path}/x.npy"], [])
    with pytest.raises(InvalidInput, match="No such file"):
        make_inputs(make_model(), [f"x={tmp_path}/other.npy"], [])


def test_archives_are_told_apart(tmp_path):
    """An archive of arrays is refused with the advice to give one array."""
    np.savez(tmp_path / "x.npz", a=np.zeros(1))
    with pytest.raises(InvalidInput, match="archive"):
        make_inputs(make_model(), [f"x={tmp_path}/x.npz"], [])


@pytest.mark.parametrize(
    ("given", "shapes", "text"),
    [
        (["x"], [], "--input takes NAME=VALUE, not 'x'"),
        (["y=ones"], [], "no input 'y'; it has x"),
        ([], ["x=2,a"], "--shape takes whole numbers"),
        ([], ["x=-1"], "--shape takes whole numbers"),
    ],
)
def test_arguments_that_are_wrong(given, shapes, text):
    """An argument of the wrong form, or for an input that is not there, is a mistake in use."""
    with pytest.raises(Usage, match=text):
        make_inputs(make_model(), given, shapes)


def test_outputs_are_described_in_one_line():
    """Name, dtype, shape and the first values; long ones are cut, scalars and bfloat16 are named."""
    assert infer.describe_output("y", np.array([[1.5, -2.0]], dtype=np.float32)) == "y: float32 1x2: 1.5 -2"
    assert infer.describe_output("y", np.arange(9)) == "y: int64 9: 0 1 2 3 4 5 6 7 ..."
    assert infer.describe_output("y", np.array(True)) == "y: bool scalar: True"
    assert infer.describe_output("y", BFloat16.from_float32([1.0])) == "y: bfloat16 1: 1"
    assert infer.describe_output("y", np.zeros((0, 2))) == "y: float64 0x2"


def test_figures_of_a_bench():
    """Throughput, quantiles and errors by code are what the run saw."""
    report = bench.Report("m", 2, 4, 2.0, [0.001 * number for number in range(1, 101)], {ErrorCode.OVERLOADED: 3})
    figures = report.figures()
    assert (figures["answers_per_s"], figures["items_per_s"]) == (50.0, 200.0)
    assert [figures[name] for name in ("p50_s", "p90_s", "p99_s", "max_s")] == [0.05, 0.09, 0.099, 0.1]
    assert (figures["failed"], figures["errors"]) == (3, {"overloaded": 3})
    empty = bench.Report("m", 1, 1, 1.0, [], {}).figures()
    assert empty["p50_s"] is None
