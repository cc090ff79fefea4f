"""The ledger of device memory is exact to the byte, and its hard watermark is never passed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtd.core.watermark import DeviceLedger, Level, OwnerState, Watermarks


def hold(ledger, address, size_bytes):
    assert ledger.reserve(size_bytes) is None
    ledger.settle(address, size_bytes)


def test_one_byte_below_need_refuses_and_at_need_holds():
    """A block that needs one byte more than the watermark is refused with the figures; one that fits is held."""
    ledger = DeviceLedger(Watermarks(hard_bytes=1000))
    hold(ledger, 1, 600)
    refused = ledger.reserve(401)
    assert str(refused) == "401 bytes more than the 600 bytes held would pass the hard watermark of 1000 bytes"
    hold(ledger, 2, 400)
    state = ledger.state()
    assert (state.live_bytes, state.peak_bytes, state.blocks, state.allocations) == (1000, 1000, 2, 2)
    assert (state.refused_count, state.refused_bytes) == (1, 401)


def test_a_refusal_of_the_device_gives_the_reservation_back():
    """What the device refuses is not held, leaves no peak, and is counted as refused."""
    ledger = DeviceLedger(Watermarks())
    assert ledger.reserve(500) is None
    assert str(ledger.cancel(500)) == "the device has no 500 bytes left, with 0 bytes held"
    state = ledger.state()
    assert (state.live_bytes, state.peak_bytes, state.refused_count, state.refused_bytes) == (0, 0, 1, 500)


def test_strays_are_counted_and_change_nothing():
    """Releasing an address that is not held changes no sum; an address that is given twice is counted once."""
    ledger = DeviceLedger(Watermarks())
    hold(ledger, 1, 10)
    assert ledger.release(2) is None
    hold(ledger, 1, 20)
    state = ledger.state()
    assert (state.live_bytes, state.blocks, state.strays) == (20, 1, 2)
    assert ledger.release(1) == 20
    assert ledger.live_bytes == 0


def test_the_level_has_hysteresis():
    """It is high above the soft watermark and low again only well below it."""
    ledger = DeviceLedger(Watermarks(soft_bytes=100))
    hold(ledger, 1, 89)
    hold(ledger, 2, 11)
    assert ledger.level is Level.LOW
    hold(ledger, 3, 1)
    assert ledger.level is Level.HIGH
    ledger.release(2)
    assert ledger.level is Level.HIGH, "90 bytes are not below nine tenths"
    ledger.release(3)
    assert ledger.level is Level.LOW


@pytest.mark.parametrize("marks", [{"soft_bytes": 2, "hard_bytes": 1}, {"soft_bytes": -1}, {"hard_bytes": -1}])
def test_senseless_watermarks_are_refused(marks):
    """A soft watermark above the hard one, or a negative one, is a defect of the caller."""
    with pytest.raises(ValueError, match="watermark"):
        Watermarks(**marks)


def test_a_block_of_nothing_is_refused():
    """A block has a size."""
    with pytest.raises(ValueError, match="0 bytes"):
        DeviceLedger(Watermarks()).reserve(0)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 8), st.integers(1, 400)),
        st.tuples(st.just("fail"), st.integers(1, 8), st.integers(1, 400)),
        st.tuples(st.just("drop"), st.integers(1, 8), st.just(0)),
    )
)


@given(steps, st.integers(0, 1000))
@settings(deadline=None)
def test_any_history_adds_up(history, hard_bytes):
    """After any history the live bytes are the sum of the blocks, and neither they nor the peak passed the bound."""
    ledger = DeviceLedger(Watermarks(hard_bytes=hard_bytes))
    model: dict[int, int] = {}
    refused = 0
    for step, address, size_bytes in history:
        if step == "drop":
            assert ledger.release(address) == model.pop(address, None)
        elif ledger.reserve(size_bytes) is not None:
            refused += size_bytes
        elif step == "fail":
            ledger.cancel(size_bytes)
            refused += size_bytes
        else:
            ledger.settle(address, size_bytes)
            model[address] = size_bytes
        state = ledger.state()
        assert state.live_bytes == sum(model.values())
        assert state.blocks == len(model)
        assert state.refused_bytes == refused
        assert not hard_bytes or state.peak_bytes <= hard_bytes


def test_each_owner_has_an_account():
    """What a model holds, what it allocated in all, its largest block and its refusals add up to the whole."""
    ledger = DeviceLedger(Watermarks(hard_bytes=1000))
    for address, size_bytes, owner in ((1, 300, "a"), (2, 100, "b"), (3, 200, "a")):
        assert ledger.reserve(size_bytes, owner) is None
        ledger.settle(address, size_bytes, owner)
    assert ledger.reserve(500, "b") is not None
    assert ledger.reserve(50, "a") is None
    ledger.cancel(50, "a")
    ledger.release(1)
    state = ledger.state()
    assert state.owners == (OwnerState("a", 200, 2, 500, 300, 1), OwnerState("b", 100, 1, 100, 100, 1))
    assert (state.live_bytes, state.allocations, state.allocated_bytes, state.largest_bytes) == (300, 3, 600, 300)
    assert state.refused_count == 2
