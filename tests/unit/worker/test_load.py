"""Loading, warm-up and the known-answer probe: what may serve and what may not."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnx.helper
import pytest

from tests.support.worker import make_model_settings, make_worker_settings, write_script
from trtd.core.faults import FaultKind, ProcessFault
from trtd.demo import models
from trtd.errors import ModelFailed, OutOfMemory
from trtd.runtime.scripted import ScriptedModel, ScriptedRuntime, ScriptedSlot
from trtd.wire.messages import MAX_TENSORS, Dtype
from trtd.wire.settings import ProbeSettings
from trtd.worker import load as loading
from trtd.worker.load import load

ONES = np.ones((1, 4), np.float32)


@pytest.fixture
def load_onnx(tmp_path):
    """Load one ONNX model as a worker does."""

    def load_onnx(data: bytes, probe: ProbeSettings | None = None, **fields):
        path = tmp_path / "model.onnx"
        path.write_bytes(data)
        model = make_model_settings(path, probe=probe, **fields)
        return load(make_worker_settings(model, runtime="onnxruntime"))

    return load_onnx


@pytest.fixture
def known(tmp_path):
    """A probe with the given arrays and no tolerance."""
    numbers = itertools.count()

    def known(absolute: float = 0.0, relative: float = 0.0, **arrays):
        path = tmp_path / f"known-{next(numbers)}.npz"
        np.savez(path, **{name.replace("_", ".", 1): array for name, array in arrays.items()})
        return ProbeSettings(str(path), absolute, relative)

    return known


SCALAR = {"name": "x", "dtype": "int8", "shape": []}


def fault_of(work) -> tuple[FaultKind, bool, str]:
    with pytest.raises(ProcessFault) as caught:
        work()
    fault = caught.value.fault
    assert "\n" not in fault.message
    return fault.kind, fault.permanent, fault.message


def test_a_right_answer_lets_a_model_serve(load_onnx, known):
    """A model whose answer is right, exactly or within the tolerance, serves; NaN is right where NaN is expected."""
    identity = models.identity(dims=(4,))
    nan = np.array([[np.nan, 1, 2, 3]], np.float32)
    for probe in (
        known(in_x=ONES, out_y=ONES),
        known(in_x=nan, out_y=nan),
        known(in_x=ONES, out_y=ONES * 1.01, relative=0.02),
        known(in_x=ONES, out_y=ONES + 0.01, absolute=0.02),
    ):
        assert load_onnx(identity, probe).catalogue.models[0].description.name == "m"


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (ONES * 2, "4 of 4 values differ, first at [0, 0]: got 1.0, expected 2.0"),
        (np.array([[1, 1, np.nan, 1]], np.float32), "1 of 4 values differ, first at [0, 2]: got 1.0, expected nan"),
        (np.ones((2, 4), np.float32), "got shape [1, 4], expected [2, 4]"),
        (np.ones((1, 4)), "got float32, expected float64"),
    ],
)
def test_a_wrong_answer_is_a_permanent_fault(load_onnx, known, expected, text):
    """An answer that differs in a value, in shape or dtype keeps the model from serving, and the fault shows how."""
    identity = models.identity(dims=(4,))
    kind, permanent, message = fault_of(lambda: load_onnx(identity, known(in_x=ONES, out_y=expected)))
    assert (kind, permanent) == (FaultKind.PROBE_FAILED, True)
    assert text in message


@pytest.mark.parametrize("dtype", [Dtype.UINT64, Dtype.BFLOAT16, Dtype.BOOL])
def test_probes_of_any_dtype(load_onnx, known, dtype):
    """Whole numbers, bools and bfloat16 (as its bits) are compared as what they are; a differing one is found."""
    kind = {Dtype.UINT64: np.uint64, Dtype.BFLOAT16: np.uint16, Dtype.BOOL: np.bool_}[dtype]
    one, zero = np.ones((1, 4), kind), np.zeros((1, 4), kind)
    identity = models.identity(dtype, (4,))
    load_onnx(identity, known(in_x=one, out_y=one))
    assert fault_of(lambda: load_onnx(identity, known(in_x=one, out_y=zero)))[0] is FaultKind.PROBE_FAILED


@pytest.mark.parametrize("where", ["open_runtime", "load", "open_slot", "run"])
def test_want_of_memory_passes(tmp_path, known, monkeypatch, where):
    """Wherever memory does not suffice before a worker serves, the next process may have it: no permanent fault."""

    def want(*_: Any, **__: Any) -> None:
        raise OutOfMemory("no 512 bytes")

    owner = {"open_runtime": loading, "load": ScriptedRuntime, "open_slot": ScriptedModel, "run": ScriptedSlot}[where]
    monkeypatch.setattr(owner, where, want)
    # A script that harms always is not warmed up: the first run is the probe's.
    script = write_script(tmp_path / "m.json")
    model = make_model_settings(script, probe=known(in_x=ONES, out_y=ONES))
    kind, permanent, message = fault_of(lambda: load(make_worker_settings(model)))
    assert (kind, permanent) == (FaultKind.OUT_OF_MEMORY, False)
    assert "no 512 bytes" in message


def test_a_probe_that_is_no_question_to_the_model_is_bad_config(load_onnx, known, tmp_path):
    """A file that is missing, no .npz, or names wrong tensors or shapes is a permanent fault of the configuration."""
    identity = models.identity(dims=(4,))
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "lone.npy", ONES)
    for probe, text in (
        (ProbeSettings(str(tmp_path / "nowhere.npz"), 0, 0), "No such file"),
        (ProbeSettings(str(tmp_path / "text.npz"), 0, 0), "not an .npz file"),
        (ProbeSettings(str(tmp_path / "lone.npy"), 0, 0), "not an .npz file"),
        (known(in_x=ONES), "wanted arrays in.NAME"),
        (known(in_x=ONES, out_z=ONES), "wanted arrays in.NAME"),
        (known(in_x=ONES, out_y=ONES, y=ONES), "wanted arrays in.NAME"),
        (known(in_z=ONES, out_y=ONES), "got inputs 'z', wanted 'x'"),
        (known(in_x=ONES[:, :2], out_y=ONES), "got shape [1, 2]"),
        (known(in_x=np.array(["a"]), out_y=ONES), "does not travel"),
    ):
        kind, permanent, message = fault_of(lambda probe=probe: load_onnx(identity, probe))
        assert (kind, permanent) == (FaultKind.BAD_CONFIG, True), message
        assert text in message


def divide(shape) -> bytes:
    """A model that reshapes to pairs: it refuses an odd number of columns."""
    nodes = [
        onnx.helper.make_node("Constant", [], ["pairs"], value_ints=[-1, 3, 7]),
        onnx.helper.make_node("Reshape", ["x", "pairs"], ["y"]),
    ]
    value = onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(nodes, "g", [value("x", kind, shape)], [value("y", kind, (None, 3, 7))])
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


@pytest.mark.parametrize("shape", [(None, 20), (None, None)])
def test_a_model_that_refuses_what_is_made_up_serves(load_onnx, shape):
    """Nobody sent these inputs: a refusal is a line in the log, and requests run alone, for that reason."""
    (model,) = load_onnx(divide(shape)).catalogue.models
    assert not model.description.is_batched
    assert model.description.batching.startswith("alone: ")


def test_faults_tell_the_model_from_the_configuration(tmp_path):
    """A bad file blames the model, an unknown runtime the configuration; both are permanent."""
    broken = make_worker_settings(make_model_settings(write_script(tmp_path / "m.json", behaviour="dance")))
    assert fault_of(lambda: load(broken))[:2] == (FaultKind.BAD_MODEL, True)
    unknown = make_worker_settings(make_model_settings("m"), runtime="abacus")
    assert fault_of(lambda: load(unknown))[:2] == (FaultKind.BAD_CONFIG, True)


@pytest.mark.parametrize("behaviour", ["out_of_memory", "model_failed"])
def test_what_was_made_up_may_fail_and_what_was_given_may_not(tmp_path, behaviour):
    """A failure with inputs that nobody sent is no fault; one with those of an operator is, and names the file."""
    path = write_script(tmp_path / "m.json", behaviour=behaviour, when={"value": 0})
    assert load(make_worker_settings(make_model_settings(path))).catalogue.models
    given = tmp_path / "given.npz"
    np.savez(given, **{"in.x": np.zeros((1, 4), np.float32)})
    settings = make_worker_settings(make_model_settings(path, warm_up_inputs=(str(given),)))
    kind, permanent, message = fault_of(lambda: load(settings))
    assert kind is (FaultKind.OUT_OF_MEMORY if behaviour == "out_of_memory" else FaultKind.BAD_MODEL)
    assert permanent == (behaviour == "model_failed")
    assert str(given) in message


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {
                "inputs": [{**SCALAR, "name": f"x{n}"} for n in range(MAX_TENSORS + 1)],
                "outputs": None,
            },
            f"{MAX_TENSORS + 1} inputs",
        ),
        ({"inputs": [{"name": "x", "dtype": "int8", "shape": [1] * 17}]}, "17 dimensions"),
        ({"outputs": ["a\nb"]}, "control character"),
        ({"inputs": [{**SCALAR, "name": f"x{n}"} for n in range(2)], "outputs": ["y", "y"]}, "two tensors"),
        ({"inputs": [{**SCALAR, "shape": [2**62]}]}, "stands for more than"),
        (
            {
                "inputs": [{**SCALAR, "name": f"{n:03}{'x' * 240}"} for n in range(MAX_TENSORS)],
                "outputs": [f"y{n}" for n in range(MAX_TENSORS)],
            },
            "not every request for it travels: the header needs",
        ),
        (
            {
                "inputs": [{"name": f"x{n}", "dtype": "int8", "shape": [1] * 10} for n in range(MAX_TENSORS)],
                "outputs": [f"{n:03}{'y' * 240}" for n in range(MAX_TENSORS)],
            },
            "not every answer of it travels: the header needs",
        ),
    ],
)
def test_models_that_do_not_travel_are_refused_at_load(tmp_path, fields, text):
    """A model with too many tensors or dimensions, or a name that no header takes, is refused before it serves."""
    if "outputs" in fields and fields["outputs"] is None:
        fields = {**fields, "outputs": [one["name"] for one in fields["inputs"]]}
    settings = make_worker_settings(make_model_settings(write_script(tmp_path / "m.json", **fields)))
    kind, permanent, message = fault_of(lambda: load(settings))
    assert (kind, permanent) == (FaultKind.BAD_MODEL, True)
    assert text in message


def test_a_slot_that_cannot_be_opened_is_the_models_fault(tmp_path, monkeypatch):
    """A runtime that refuses a model when a slot is opened has one that no new process would serve."""

    def open_slot(self):
        raise ModelFailed("model 'm' 1: a damaged kernel")

    monkeypatch.setattr(ScriptedModel, "open_slot", open_slot)
    settings = make_worker_settings(make_model_settings(write_script(tmp_path / "m.json")))
    kind, permanent, message = fault_of(lambda: load(settings))
    assert (kind, permanent) == (FaultKind.BAD_MODEL, True)
    assert "a damaged kernel" in message
