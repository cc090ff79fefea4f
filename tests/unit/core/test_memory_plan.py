"""Admission by memory: refused with each term and the sum, one byte below need and not at need."""

from __future__ import annotations

import pytest

from trtd.core.memory_plan import LEAST_MARGIN_BYTES, MemoryPlan, derived_hard_bytes, refuse

PLAN = MemoryPlan(weights_bytes=3000, context_bytes=20, enqueue_bytes=200, io_bytes=40, slots=3, overhead_bytes=500)
NEED = 3000 + 60 + 600 + 120


def test_at_need_it_fits_and_one_byte_below_it_does_not():
    """The watermark decides to the byte; the refusal names the terms, the sum and the bound."""
    assert refuse(PLAN, held_bytes=0, hard_bytes=NEED, free_bytes=None) is None
    assert refuse(PLAN, held_bytes=0, hard_bytes=NEED - 1, free_bytes=None) == (
        "it needs 3780 bytes of device memory (weights 3000 + contexts x 3 slots 60 + scratch x 3 slots 600 + inputs "
        "and outputs x 3 slots 120); the hard watermark is 3779 bytes"
    )


def test_what_is_held_counts():
    """Models share one watermark."""
    refusal = refuse(PLAN, held_bytes=1, hard_bytes=NEED, free_bytes=None)
    assert refusal is not None
    assert "beside 1 bytes held" in refusal


def test_the_device_has_to_have_it_with_what_the_driver_takes():
    """What the driver takes counts against the device, not against the watermark."""
    assert refuse(PLAN, held_bytes=0, hard_bytes=0, free_bytes=NEED + 500) is None
    refusal = refuse(PLAN, held_bytes=0, hard_bytes=NEED, free_bytes=NEED + 499)
    assert refusal is not None
    assert refusal.startswith("it needs 4280 bytes")
    assert refusal.endswith("+ driver 500); the device has 4279 bytes free")


def test_without_bounds_everything_fits():
    """No watermark and an unknown device refuse nothing, and a plan of nothing has no terms."""
    assert refuse(PLAN, held_bytes=10**12, hard_bytes=0, free_bytes=None) is None
    assert MemoryPlan().terms() == ()


def test_scratch_that_earlier_models_need_anyway_is_not_asked_for_again():
    """Models of one slot share scratch memory: only what goes beyond the largest one before counts."""
    assert MemoryPlan(enqueue_bytes=200, shared_bytes=150, slots=3).ledger_bytes == 150
    assert MemoryPlan(enqueue_bytes=200, shared_bytes=300, slots=3).ledger_bytes == 0


def test_what_earlier_models_have_not_allocated_yet_counts():
    """A promise is kept: it leaves less for who comes later, at the watermark and on the device."""
    assert refuse(PLAN, held_bytes=5, promised_bytes=7, hard_bytes=NEED + 12, free_bytes=NEED + 507) is None
    refusal = refuse(PLAN, held_bytes=5, promised_bytes=7, hard_bytes=NEED + 11, free_bytes=None)
    assert refusal is not None
    assert "beside 5 bytes held and 7 bytes promised to models loaded before; the hard" in refusal
    refusal = refuse(PLAN, held_bytes=5, promised_bytes=7, hard_bytes=0, free_bytes=NEED + 506)
    assert refusal is not None
    assert "+ driver 500) beside 7 bytes promised to models loaded before; the device" in refusal


def test_streamed_weights_count_against_the_device_only():
    """Weights that stay on the device without passing the ledger need room there, and none below the watermark."""
    plan = MemoryPlan(context_bytes=10, streamed_bytes=1000, overhead_bytes=100)
    assert refuse(plan, held_bytes=0, hard_bytes=10, free_bytes=1110) is None
    problem = refuse(plan, held_bytes=0, hard_bytes=0, free_bytes=1109)
    assert problem is not None
    assert "1110 bytes of device memory (contexts 10 + streamed weights 1000 + driver 100)" in problem


@pytest.mark.parametrize(
    ("held", "promised", "growth", "total", "expected"),
    [
        (100, 50, 0, 10**12, 150 + LEAST_MARGIN_BYTES),
        (100, 50, 7, 10**12, 157 + LEAST_MARGIN_BYTES),
        (30 * 10**9, 10 * 10**9, 0, 10**12, 50 * 10**9),
        (30 * 10**9, 10 * 10**9, 0, 45 * 10**9, 45 * 10**9),
    ],
)
def test_a_watermark_follows_from_what_was_computed(held, promised, growth, total, expected):
    """What admission computed plus a margin, never above the device."""
    given = {"held_bytes": held, "promised_bytes": promised, "growth_bytes": growth, "total_bytes": total}
    assert derived_hard_bytes(**given) == expected
