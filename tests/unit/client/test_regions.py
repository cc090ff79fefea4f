"""The allocator of an arena: regions never overlap, and all bytes come back but those that are retired."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtd.client.regions import Regions, aligned

SIZE = 64 * 64


def test_a_region_begins_where_workers_may_write():
    """Offsets are multiples of 64, whatever the sizes."""
    regions = Regions(SIZE)
    assert [regions.take(size) for size in (1, 64, 65, 0)] == [0, 64, 128, 256]


def test_there_is_no_room():
    """What does not fit is not given, and nothing is lost by asking."""
    regions = Regions(SIZE)
    assert regions.take(SIZE + 1) is None
    assert regions.take(SIZE) == 0
    assert regions.take(1) is None
    regions.give_back(0)
    assert regions.take(SIZE) == 0


def test_a_retired_region_is_never_given_again():
    """What is retired is counted, and neither given nor merged with what is free around it."""
    regions = Regions(3 * 64)
    offsets = [regions.take(64) for _ in range(3)]
    regions.retire(64)
    for offset in (0, 128):
        regions.give_back(offset)
    assert offsets == [0, 64, 128]
    assert (regions.used_bytes, regions.retired_bytes) == (0, 64)
    assert regions.take(65) is None
    assert {regions.take(64), regions.take(64), regions.take(64)} == {0, 128, None}


def test_a_region_ends_once():
    """To give back what is free or retired already is an error of the caller."""
    regions = Regions(SIZE)
    for end in (regions.give_back, regions.retire):
        regions.take(1)
        end(0)
        with pytest.raises(KeyError):
            regions.give_back(0)


@given(st.lists(st.tuples(st.sampled_from(["take", "give back", "retire"]), st.integers(0, 20 * 64)), max_size=200))
def test_regions_never_overlap_and_all_come_back(steps):
    """After any steps no byte is in two regions; in the end one region can hold all that lies between retired ones."""
    regions = Regions(SIZE)
    used: dict[int, int] = {}
    retired: dict[int, int] = {}
    for step, number in steps:
        if step == "take":
            offset = regions.take(number)
            needed = aligned(max(number, 1))
            if offset is None:
                continue
            assert offset % 64 == 0
            assert offset + needed <= SIZE
            for other, size in (used | retired).items():
                assert offset + needed <= other or other + size <= offset
            used[offset] = needed
        elif used:
            offset = sorted(used)[number % len(used)]
            if step == "retire":
                regions.retire(offset)
                retired[offset] = used.pop(offset)
            else:
                regions.give_back(offset)
                del used[offset]
        assert (regions.used_bytes, regions.retired_bytes) == (sum(used.values()), sum(retired.values()))
    for offset in used:
        regions.give_back(offset)
    start = 0
    for offset, size in [*sorted(retired.items()), (SIZE, 0)]:
        if offset > start:
            assert regions.take(offset - start) == start
        start = offset + size
    assert regions.take(1) is None
