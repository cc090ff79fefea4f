"""Device memory: exact to the byte, refused with the sum, and never a crash."""

from __future__ import annotations

import gc
import importlib
import random

import pytest

from tests.gpu.conftest import check, free_bytes, model_settings, reference
from tests.support.worker import make_model_settings
from trtd.core.cuda_faults import OUT_OF_MEMORY
from trtd.errors import InvalidConfig, OutOfMemory

pytestmark = pytest.mark.gpu

cuda = pytest.importorskip("trtd.runtime.cuda", reason="no GPU test can run: cuda-bindings are not installed")


@pytest.fixture
def refusing_pool(monkeypatch):
    """Lets the n-th allocation from now on fail as the driver does; 0 for none."""
    allocate = cuda.MemoryPool.allocate
    left = 0

    def refuse(number):
        nonlocal left
        left = number

    def allocate_or_fail(*args):
        nonlocal left
        left -= 1
        if left == 0:
            raise cuda.CudaError(OUT_OF_MEMORY, "the test")
        return allocate(*args)

    monkeypatch.setattr(cuda.MemoryPool, "allocate", allocate_or_fail)
    return refuse


@pytest.mark.parametrize("plan", ["mlp.plain", "encoder_fp16.plain", "nonzero.vc"])
def test_any_refused_allocation_is_a_typed_error(open_tensorrt, assets, plan, refusing_pool):
    """Whichever allocation is refused, the error is typed, nothing stays held, and the next try works."""
    runtime = open_tensorrt(max_graphs=0)
    inputs, outputs = reference(assets, plan, "three")
    refused = 0
    for number in range(1, 60):
        refusing_pool(number)
        slot = model = None
        try:
            model = runtime.load(model_settings(assets, plan))
            slot = model.open_slot()
            slot.run([inputs])
        except OutOfMemory:
            refused += 1
        else:
            break
        finally:
            if slot is not None:
                slot.close()
            refusing_pool(0)
            slot = model = None
            gc.collect()
            assert runtime.ledger().live_bytes == 0, f"after allocation {number}"
    assert refused >= 4
    slot = runtime.load(model_settings(assets, plan)).open_slot()
    check(plan, slot.run([inputs])[0], outputs)


def test_the_watermark_decides_to_the_byte(open_tensorrt, assets):
    """What was needed at the peak loads at that watermark; one byte less is refused with the sum."""
    settings = model_settings(assets, "mlp.plain")
    runtime = open_tensorrt(max_graphs=0)
    slot = runtime.load(settings).open_slot()
    slot.run([reference(assets, "mlp", "one")[0]])
    need = runtime.ledger().peak_bytes
    runtime = open_tensorrt(max_graphs=0, hard_bytes=need)
    slot = runtime.load(settings).open_slot()
    assert runtime.ledger().live_bytes == need
    with pytest.raises(
        OutOfMemory, match=r"needs \d+ bytes of device memory \(.* \+ .*\).*hard watermark is \d+ bytes"
    ):
        open_tensorrt(max_graphs=0, hard_bytes=need - 1).load(settings)


def test_a_graph_that_does_not_fit_is_done_without(open_tensorrt, assets, refusing_pool):
    """Where memory does not suffice for a graph's context the shape runs without, right, and admission asks no more."""
    runtime = open_tensorrt()
    slot = runtime.load(model_settings(assets, "mlp.plain")).open_slot()
    slot._graphs.is_eager = True
    graphs, held = slot.graphs, runtime.ledger().live_bytes
    inputs, outputs = reference(assets, "mlp", "three")
    check("mlp", slot.run([inputs])[0], outputs)
    refusing_pool(1)
    for _ in range(4):
        check("mlp", slot.run([inputs])[0], outputs)
    assert (slot.graphs, runtime.ledger().live_bytes) == (graphs, held)
    slot = open_tensorrt(hard_bytes=held).load(model_settings(assets, "mlp.plain")).open_slot()
    check("mlp", slot.run([inputs])[0], outputs)


def test_failing_loads_leave_the_device_as_it_was(open_tensorrt, assets, tmp_path):
    """200 loads of damaged plans leave the used bytes of the device unchanged."""
    good = (assets / "mlp.plain.plan").read_bytes()
    damaged = tmp_path / "damaged.plan"
    runtime = open_tensorrt()
    runtime.load(model_settings(assets, "mlp.plain"))
    before = None
    for turn in range(200):
        # The header stays plausible, so that TensorRT itself has to find out.
        damaged.write_bytes(good[:80] + b"\xff" * 4096 + good[4176:] if turn % 2 else good[:-5])
        with pytest.raises(InvalidConfig):
            runtime.load(make_model_settings(damaged))
        if turn == 3:
            before = free_bytes()
    assert runtime.ledger().live_bytes == 0
    assert free_bytes() == before


def test_mutated_headers_never_crash(open_tensorrt, assets, tmp_path):
    """Plans with a flipped bit in the first 80 bytes are refused with a reason.

    TensorRT and its package do not tell the build number (byte 27), and nobody looks at the padding of the parts.
    """
    good = (assets / "mlp.plain.plan").read_bytes()
    runtime = open_tensorrt()
    place = tmp_path / "mutated.plan"
    rng = random.Random(4)
    accepted, refused = [], 0
    for _ in range(60):
        at = rng.randrange(80)
        place.write_bytes(good[:at] + bytes([good[at] ^ (1 << rng.randrange(8))]) + good[at + 1 :])
        try:
            runtime.load(make_model_settings(place))
        except (InvalidConfig, OutOfMemory):
            refused += 1
        else:
            accepted.append(at)
    assert refused > 40
    assert set(accepted) <= {27, *range(36, 40), *range(60, 64)}, sorted(set(accepted))


def test_models_of_a_thread_share_scratch_memory(open_tensorrt, assets):
    """Two models need the scratch memory of the larger one, admission knows it to the byte, and answers stay right."""
    plans = ("squeezenet_fp16.plain", "encoder_fp16.plain")

    def serve(runtime):
        models = [runtime.load(model_settings(assets, plan, max_batch=32)) for plan in plans]
        slots = [model.open_slot() for model in models]
        for _ in range(3):
            for plan, slot in zip(plans, slots, strict=True):
                for case in ("one", "three", "opt"):
                    inputs, outputs = reference(assets, plan, case)
                    check(plan, slot.run([inputs])[0], outputs)
        return models, slots

    runtime = open_tensorrt(max_graphs=0)
    models, slots = serve(runtime)
    alone = [model._engine.needs().enqueue_bytes for model in models]
    need = runtime.ledger().live_bytes
    assert slots[0]._scratch is slots[1]._scratch
    assert slots[0]._scratch.size_bytes == max(alone)
    serve(open_tensorrt(max_graphs=0, hard_bytes=need))
    with pytest.raises(OutOfMemory, match="promised to models loaded before"):
        serve(open_tensorrt(max_graphs=0, hard_bytes=need - 1))
    for slot in slots:
        slot.close()
    del models, slots, slot
    gc.collect()
    assert runtime.ledger().live_bytes == 0


def set_limits(monkeypatch):
    """What each context was told to set apart, as it is told."""
    slot_module = importlib.import_module("trtd.runtime.tensorrt.slot")
    told, original = [], slot_module.assign

    def assign(owner, name, value):
        if name == "persistent_cache_limit":
            told.append(value)
        original(owner, name, value)

    monkeypatch.setattr(slot_module, "assign", assign)
    return told


def test_l2_is_set_apart_as_far_as_the_device_has_it(open_tensorrt, assets, monkeypatch):
    """The limit reaches device and contexts, whose sum stays within the slot's part; more than there is is refused."""
    from cuda.bindings import runtime as cudart

    runtime = open_tensorrt(persistent_l2_bytes=1 << 20, slots=2)
    most = runtime.device.persisting_l2_bytes
    assert cuda.call(cudart.cudaDeviceGetLimit, cudart.cudaLimit.cudaLimitPersistingL2CacheSize) >= 2 << 20
    limits = set_limits(monkeypatch)
    slot = runtime.load(model_settings(assets, "squeezenet_fp16.plain")).open_slot()
    inputs, outputs = reference(assets, "squeezenet_fp16", "three")
    slot.settle(inputs)
    check("squeezenet_fp16", slot.run([inputs])[0], outputs)
    assert 0 < sum(limits) <= 1 << 20
    with pytest.raises(InvalidConfig, match=f"this device sets apart {most} in all"):
        open_tensorrt(persistent_l2_bytes=most // 2 + 1, slots=2)


def test_above_the_soft_watermark_grown_outputs_are_given_back(open_tensorrt, assets):
    """An output of unknown size is kept between runs below the watermark, and given back after each run above it."""
    inputs, outputs = reference(assets, "nonzero", "three")
    held = {}
    for soft_bytes in (0, 1):
        runtime = open_tensorrt(soft_bytes=soft_bytes)
        slot = runtime.load(model_settings(assets, "nonzero.vc")).open_slot()
        check("nonzero", slot.run([inputs])[0], outputs)
        held[soft_bytes] = runtime.ledger().live_bytes
        assert runtime.device_memory().is_high == bool(soft_bytes)
    assert held[1] < held[0]


def test_staging_is_bounded(open_tensorrt, assets):
    """A slot whose staging passes the bound is refused with the figures."""
    with pytest.raises(OutOfMemory, match="pinned staging"):
        open_tensorrt(staging_bytes=4096).load(model_settings(assets, "mlp.plain")).open_slot()


def test_without_a_watermark_one_is_derived(open_tensorrt, assets):
    """The models' own needs are met with right answers; what goes beyond them and the margin is refused, and told."""
    runtime = open_tensorrt(slots=2)
    models = [runtime.load(model_settings(assets, plan)) for plan in ("mlp.plain", "nonzero.vc", "encoder_fp16.plain")]
    slots = [model.open_slot() for model in models for _ in range(2)]
    for slot, plan in zip(slots, ["mlp", "mlp", "nonzero", "nonzero", "encoder_fp16", "encoder_fp16"], strict=True):
        for case in ("one", "three", "opt"):
            inputs, outputs = reference(assets, plan, case)
            check(plan, slot.run([inputs])[0], outputs)
    report = runtime.device_memory()
    print("derived", report.hard_bytes, "live", report.live_bytes, "peak", report.peak_bytes)
    assert report.is_hard_derived
    assert report.peak_bytes <= report.hard_bytes < runtime.device.total_bytes // 4
    assert report.refused_count == 0
    with pytest.raises(OutOfMemory, match=r"was derived, tensorrt\.hard_bytes sets another"):
        runtime.memory.allocate(report.hard_bytes, "growth")
    for slot in slots:
        slot.close()


def test_each_model_has_an_account(open_tensorrt, assets):
    """What weights, contexts and buffers take is told by model, and the sum is the ledger's."""
    runtime = open_tensorrt()
    models = [runtime.load(model_settings(assets, plan)) for plan in ("mlp.plain", "encoder_fp16.plain")]
    slots = [model.open_slot() for model in models]
    report = runtime.device_memory()
    print(report.models)
    assert [one.model for one in report.models] == ["encoder_fp16 1", "mlp 1"]
    assert sum(one.live_bytes for one in report.models) == report.live_bytes == runtime.ledger().live_bytes
    assert sum(one.allocations for one in report.models) == report.allocations
    assert report.largest_bytes == max(one.largest_bytes for one in report.models)
    for slot in slots:
        slot.close()
    del models, slots, slot
    gc.collect()
    assert [one.live_bytes for one in runtime.device_memory().models] == [0, 0]


def test_streamed_weights_need_no_room_below_the_watermark(open_tensorrt, assets):
    """A plan whose weights are streamed is admitted by what it takes, also where its whole weights would not fit."""
    runtime = open_tensorrt(streamed_weights_bytes=0)
    slot = runtime.load(model_settings(assets, "mlp.stream")).open_slot()
    need = runtime.ledger().peak_bytes
    slot.close()
    print("streamed:", need, "bytes in the ledger")
    inputs, outputs = reference(assets, "mlp", "three")
    slot = (
        open_tensorrt(streamed_weights_bytes=0, hard_bytes=need).load(model_settings(assets, "mlp.stream")).open_slot()
    )
    check("mlp", slot.run([inputs])[0], outputs)


def test_what_the_context_took_is_not_asked_for_again(open_tensorrt, assets):
    """The driver has its part already: a device that has the rest admits the model, one that has not refuses it."""
    free = free_bytes()
    open_tensorrt(overhead_bytes=free + (300 << 20)).load(model_settings(assets, "mlp.plain"))
    with pytest.raises(OutOfMemory, match=r"\+ driver \d+\)"):
        open_tensorrt(overhead_bytes=2 * free).load(model_settings(assets, "mlp.plain"))
