"""Device memory: exact to the byte, refused with the sum, and never a crash."""

from __future__ import annotations

import gc
import random

import pytest

from tests.gpu.conftest import check, free_bytes, model_settings, reference
from tests.support.worker import make_model_settings
from trtd.errors import InvalidConfig, OutOfMemory

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("plan", ["mlp.plain", "encoder_fp16.plain", "nonzero.vc"])
def test_any_refused_allocation_is_a_typed_error(open_tensorrt, assets, plan):
    """Whichever allocation is refused, the error is typed, nothing stays held, and the next try works."""
    runtime = open_tensorrt()
    inputs, outputs = reference(assets, plan, "three")
    refused = 0
    for number in range(1, 60):
        first = runtime.ledger()
        runtime.memory.refuse_nth = lambda n, at=first.allocations + first.refused_count + number: n == at
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
            runtime.memory.refuse_nth = None
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


def test_staging_is_bounded(open_tensorrt, assets):
    """A slot whose staging passes the bound is refused with the figures."""
    with pytest.raises(OutOfMemory, match="pinned staging"):
        open_tensorrt(staging_bytes=4096).load(model_settings(assets, "mlp.plain")).open_slot()
