"""Device memory: exact to the byte, refused with the sum, and never a crash."""

from __future__ import annotations

import gc
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
    runtime = open_tensorrt()
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
    runtime = open_tensorrt()
    slot = runtime.load(settings).open_slot()
    slot.run([reference(assets, "mlp", "one")[0]])
    need = runtime.ledger().peak_bytes
    runtime = open_tensorrt(hard_bytes=need)
    slot = runtime.load(settings).open_slot()
    assert runtime.ledger().live_bytes == need
    with pytest.raises(
        OutOfMemory, match=r"needs \d+ bytes of device memory \(.* \+ .*\).*hard watermark is \d+ bytes"
    ):
        open_tensorrt(hard_bytes=need - 1).load(settings)


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

    runtime = open_tensorrt()
    models, slots = serve(runtime)
    alone = [model._engine.needs().enqueue_bytes for model in models]
    need = runtime.ledger().live_bytes
    assert slots[0]._scratch is slots[1]._scratch
    assert slots[0]._scratch.size_bytes == max(alone)
    serve(open_tensorrt(hard_bytes=need))
    with pytest.raises(OutOfMemory, match="promised to models loaded before"):
        serve(open_tensorrt(hard_bytes=need - 1))
    for slot in slots:
        slot.close()
    del models, slots, slot
    gc.collect()
    assert runtime.ledger().live_bytes == 0


def test_l2_is_set_apart_as_far_as_the_device_has_it(open_tensorrt, assets):
    """The limit reaches the device's context; more than the device can set apart is refused with the figures."""
    from cuda.bindings import runtime as cudart

    runtime = open_tensorrt(persistent_l2_bytes=1 << 20, slots=2)
    most = runtime.device.persisting_l2_bytes
    assert cuda.call(cudart.cudaDeviceGetLimit, cudart.cudaLimit.cudaLimitPersistingL2CacheSize) >= 2 << 20
    slot = runtime.load(model_settings(assets, "squeezenet_fp16.plain")).open_slot()
    inputs, outputs = reference(assets, "squeezenet_fp16", "three")
    check("squeezenet_fp16", slot.run([inputs])[0], outputs)
    with pytest.raises(InvalidConfig, match=f"this device sets apart {most}"):
        open_tensorrt(persistent_l2_bytes=most + 1)


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
