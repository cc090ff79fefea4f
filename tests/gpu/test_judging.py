"""Refusals of the real bindings, by exception or by value, and whose they are.

A profile that an engine does not have is not asked for: the bindings of 10.6 report it and then crash the process. trtd
chooses among the profiles that the engine names.
"""

from __future__ import annotations

import pytest

from tests.gpu.conftest import check, model_settings, reference
from trtd.errors import ModelFailed

pytestmark = pytest.mark.gpu

judge = pytest.importorskip("trtd.runtime.tensorrt.judge", reason="no GPU test can run: cuda-bindings are missing")
cuda = pytest.importorskip("trtd.runtime.cuda")


@pytest.fixture
def slots(open_tensorrt, assets):
    """A runtime with two slots of one model."""
    runtime = open_tensorrt(slots=2, max_graphs=0)
    model = runtime.load(model_settings(assets, "mlp.plain"))
    return runtime, [model.open_slot(), model.open_slot()]


def test_shapes_that_cannot_be_inferred_are_refused(slots, assets, monkeypatch):
    """A run whose shapes were never set is the model's failure, in words, and the next one is right."""
    _, (slot, _) = slots
    inputs, outputs = reference(assets, "mlp", "three")
    lane = slot._lanes[0]
    fresh = slot._make_context(lane.profile, 0)
    told = judge.ask(fresh.infer_shapes)
    print("infer_shapes without shapes:", told)
    assert told == ["x"]
    output_shapes = slot._engine.output_shapes
    monkeypatch.setattr(slot._engine, "output_shapes", lambda *_: {"y": (3, 512)})
    lane.context = fresh
    lane.key = None
    with pytest.raises(ModelFailed, match="x missing"):
        slot.run([inputs])
    monkeypatch.setattr(slot._engine, "output_shapes", output_shapes)
    check("mlp", slot.run([inputs])[0], outputs)


def test_what_one_slot_is_told_no_other_hears(slots):
    """Each slot's contexts report to the slot alone; the book that all share stays empty."""
    runtime, (one, other) = slots
    assert one._lanes[0].context.error_recorder is not other._lanes[0].context.error_recorder
    one._lanes[0].context.set_input_shape("x", (1000, 512))
    assert any("set" in text or "Shape" in text for text in one._book.take())
    assert other._book.take() == runtime._session.book.take() == []


def test_the_probe_finds_a_sound_device_sound(slots):
    """Neither a refused call nor what it left behind makes a process look lost."""
    _, (slot, _) = slots
    assert cuda.probe(slot._stream) == 0
    with pytest.raises(cuda.CudaError):
        cuda.pin(1, 4096)
    assert cuda.probe(slot._stream) == 0
    assert cuda.probe() == 0


def test_tensorrts_own_plugins_are_there(slots):
    """Plans may name plugins that come with TensorRT."""
    runtime, _ = slots
    registry = runtime.package.module.get_plugin_registry()
    names = {creator.name for creator in registry.all_creators}
    print(len(names), "plugins")
    assert {"EfficientNMS_TRT", "ROIAlign_TRT"} <= names


def test_tensors_are_linear_as_the_engine_says(slots):
    """What the engine tells of its layout is the linear one, and its strides are without gaps."""
    _, (slot, _) = slots
    context = slot._lanes[0].context
    slot._engine.output_shapes(context, slot._engine.profiles[0], {"x": (3, 512)})
    for tensor in slot._engine.tensors:
        assert slot._engine.raw.get_tensor_format(tensor.name, 0).name == "LINEAR"
        assert tuple(context.get_tensor_strides(tensor.name)) == (512, 1)
    slot._forget_shapes()
