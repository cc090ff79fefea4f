"""Where outputs go in the area of a request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trtd.runtime.areas import places
from trtd.wire.arenas import MIN_PLACED_BYTES, PLACE_ALIGNMENT_BYTES

SIZES = st.lists(st.integers(0, 4 * MIN_PLACED_BYTES), max_size=6)


@given(sizes=SIZES, area_bytes=st.integers(0, 16 * MIN_PLACED_BYTES))
def test_places_are_aligned_apart_and_inside(sizes, area_bytes):
    """Each place is aligned, begins where the one before it has ended, and ends within the area."""
    end = 0
    for size, at in zip(sizes, places(sizes, area_bytes), strict=True):
        if at is None:
            assert size < MIN_PLACED_BYTES or end + size > area_bytes
            continue
        assert size >= MIN_PLACED_BYTES
        assert at % PLACE_ALIGNMENT_BYTES == 0
        assert 0 <= at - end < PLACE_ALIGNMENT_BYTES
        end = at + size
        assert end <= area_bytes


def test_what_fits_is_placed_to_the_last_byte():
    """An output as large as the area, or as what is left of it, is placed."""
    least = MIN_PLACED_BYTES
    assert places([least], least) == [0]
    assert places([least + 1, least], 2 * least + 64) == [0, least + 64]
    assert places([least + 1, least], 2 * least + 63) == [0, None]
    assert places([least - 1, least], 2 * least) == [None, 0]
