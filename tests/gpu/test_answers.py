"""Every plan answers as its reference, through slots, with graphs and without."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.gpu.conftest import check, model_settings, reference
from trtd.errors import InvalidConfig, InvalidInput

PLANS = [
    "mlp.plain",
    "mlp.vc",
    "mlp.ampere_plus",
    "mlp.stream",
    "mlp_two_profiles.vc",
    "squeezenet_fp16.plain",
    "squeezenet_fp16.vc",
    "resnet50_fp16.vc",
    "encoder_fp16.plain",
    "encoder_fp16.vc",
    "two_io.vc",
    "nonzero.vc",
]
CASES = ["one", "three", "opt"]
GRAPHS = [pytest.param(0, id="plain"), pytest.param(32, id="graphs")]
CAPTURED = {"mlp", "mlp_two_profiles", "squeezenet_fp16", "resnet50_fp16", "encoder_fp16", "two_io"}

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("max_graphs", GRAPHS)
@pytest.mark.parametrize("plan", PLANS)
def test_every_case_is_right(open_tensorrt, assets, plan, max_graphs):
    """Each case is right the first, second and third time, in any order of shapes, and graphs are used where asked."""
    runtime = open_tensorrt(max_graphs=max_graphs)
    model = runtime.load(model_settings(assets, plan))
    slot = model.open_slot()
    for _ in range(3):
        for case in CASES:
            inputs, outputs = reference(assets, plan, case)
            check(plan, slot.run([inputs])[0], outputs)
    assert (slot.graphs > 0) == (max_graphs > 0 and plan.partition(".")[0] in CAPTURED)
    slot.close()
    del slot, model
    assert runtime.ledger().live_bytes == 0


@pytest.mark.parametrize("max_graphs", GRAPHS)
@pytest.mark.parametrize("plan", ["mlp.plain", "mlp_two_profiles.vc", "squeezenet_fp16.plain", "resnet50_fp16.vc"])
def test_a_full_batch_of_several_requests_is_right(open_tensorrt, assets, plan, max_graphs):
    """The largest batch, put together from requests of different sizes, gives each request its own rows."""
    model = open_tensorrt(max_graphs=max_graphs).load(model_settings(assets, plan, max_batch=128))
    slot = model.open_slot()
    most = model.description.max_batch
    cases = [reference(assets, plan, case) for case in CASES]
    for _ in range(3):
        batch, items = [], 0
        while items < most:
            inputs, outputs = cases[len(batch) % 3]
            count = len(next(iter(inputs.values())))
            if items + count > most:
                inputs, outputs = cases[0]
                count = 1
            batch.append((inputs, outputs))
            items += count
        for got, (_, outputs) in zip(slot.run([inputs for inputs, _ in batch]), batch, strict=True):
            check(plan, got, outputs)


def test_sizes_between_profiles_are_padded(open_tensorrt, assets):
    """Batches of 5 to 7 fit no profile (1 to 4, 8 to 128) and are answered all the same, without the added rows."""
    model = open_tensorrt().load(model_settings(assets, "mlp_two_profiles.vc", max_batch=128))
    slot = model.open_slot()
    inputs, outputs = reference(assets, "mlp_two_profiles", "opt")
    for _ in range(3):
        for count in (5, 6, 7, 1, 8, 5):
            got = slot.run([{"x": inputs["x"][:count]}])[0]
            check("mlp_two_profiles", got, {"y": outputs["y"][:count]})


def test_nothing_of_one_batch_is_left_for_the_next(open_tensorrt, assets):
    """After a full batch of noise, a small and padded batch answers to the bit as a fresh slot does."""
    model = open_tensorrt().load(model_settings(assets, "mlp_two_profiles.vc", max_batch=128))
    inputs, _ = reference(assets, "mlp_two_profiles", "opt")
    question = {"x": inputs["x"][:5]}
    fresh = model.open_slot().run([question])[0]["y"]
    used = model.open_slot()
    for _ in range(4):
        used.run([{"x": np.full((128, 256), np.nan, np.float32)}])
        assert np.array_equal(used.run([question])[0]["y"], fresh)


def test_answers_outlive_the_next_batch(open_tensorrt, assets):
    """An answer that was given is not written to by later batches."""
    slot = open_tensorrt().load(model_settings(assets, "mlp.plain")).open_slot()
    inputs, outputs = reference(assets, "mlp", "three")
    kept = slot.run([inputs])[0]
    for _ in range(5):
        slot.run([{"x": np.zeros((3, 512), np.float32)}])
    check("mlp", kept, outputs)


def test_slots_run_side_by_side(open_tensorrt, assets):
    """Three slots in three threads, with shapes in changing order, each give right answers only."""
    model = open_tensorrt(slots=3).load(model_settings(assets, "encoder_fp16.plain"))
    cases = [reference(assets, "encoder_fp16", case) for case in CASES]
    failures = []

    def work(start):
        try:
            slot = model.open_slot()
            for turn in range(60):
                inputs, outputs = cases[(start + turn) % 3]
                check("encoder_fp16", slot.run([inputs])[0], outputs)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert failures == []


def test_a_shape_outside_every_profile_is_refused(open_tensorrt, assets):
    """The refusal says what came and what is taken, and the slot goes on."""
    slot = open_tensorrt().load(model_settings(assets, "encoder_fp16.plain")).open_slot()
    inputs, outputs = reference(assets, "encoder_fp16", "one")
    wrong = {name: np.ones((1, 300), np.int64) for name in inputs}
    with pytest.raises(InvalidInput, match=r"got ids \[1, 300\], mask \[1, 300\], wanted ids \[1, 8\] to \[32, 256\]"):
        slot.run([wrong])
    check("encoder_fp16", slot.run([inputs])[0], outputs)


def test_streamed_weights_answer_as_well(open_tensorrt, assets):
    """With a budget of nothing the weights are streamed, no graph is captured, and the answers are right."""
    slot = open_tensorrt(streamed_weights_bytes=0).load(model_settings(assets, "mlp.stream")).open_slot()
    for case in CASES:
        inputs, outputs = reference(assets, "mlp", case)
        check("mlp", slot.run([inputs])[0], outputs)
    assert slot.graphs == 0


@pytest.mark.parametrize("fields", [{"is_spinning": True}, {"is_lazy": False}, {"stream_priority": -5}])
def test_other_settings_answer_as_well(open_tensorrt, assets, fields):
    """Spinning waits, eager loading and streams that come first change no answer."""
    slot = open_tensorrt(**fields).load(model_settings(assets, "squeezenet_fp16.plain")).open_slot()
    inputs, outputs = reference(assets, "squeezenet_fp16", "three")
    check("squeezenet_fp16", slot.run([inputs])[0], outputs)


def test_a_stripped_plan_is_refused(open_tensorrt, assets):
    """A plan without weights would answer zeros; it is refused."""
    with pytest.raises(InvalidConfig, match="built without its weights"):
        open_tensorrt().load(model_settings(assets, "mlp.stripped"))
