"""Groups of suspects, and the memory for poison."""

from __future__ import annotations

import pytest

from tests.support.desk import make_request, make_worker
from trtd.core.inflight import MAX_DEATHS_KEPT, MAX_PARTS, MAX_POISONS, PoisonTable, SuspectLane, split


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 64, 100])
def test_a_group_splits_into_equal_parts_in_order(count):
    """At most eight groups, none empty, sizes differ by at most one, and the order is kept."""
    requests = [make_request() for _ in range(count)]
    parts = split(requests)
    assert [request for part in parts for request in part] == requests
    assert len(parts) == min(count, MAX_PARTS)
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1


def test_the_lane_keeps_groups_in_order_and_marks_their_members():
    """Groups come out as they went in, those pushed to the front first, and all members are suspects."""
    lane = SuspectLane()
    first, second, front = [make_request()], [make_request(), make_request()], [make_request()]
    lane.append(first)
    lane.append(second)
    lane.push_front([front])
    assert len(lane) == 4
    assert all(request.is_suspect for request in lane)
    assert [lane.pop() for _ in range(3)] == [front, first, second]
    with pytest.raises(IndexError):
        lane.pop()


def test_a_request_leaves_its_group_and_an_empty_group_leaves_the_lane():
    """Removing members one by one never leaves an empty group behind."""
    lane = SuspectLane()
    alone, left, stays = (make_request() for _ in range(3))
    lane.append([alone])
    lane.append([left, stays])
    lane.remove(alone)
    lane.remove(left)
    assert lane.pop() == [stays]
    assert len(lane) == 0


ANN = "uid:1000"
BOB = "uid:1001"


def note(table: PoisonTable, digest: bytes, lone_deaths: int, now: float, seconds: float) -> None:
    table.note((ANN, digest), lone_deaths, [make_worker(generation=3)], now, seconds)


def recall(table: PoisonTable, digest: bytes, now: float) -> int | None:
    known = table.recall((ANN, digest), now)
    return None if known is None else known.lone_deaths


def test_poison_is_remembered_for_its_time():
    """An input is recalled until its time is up, and not known before it was noted."""
    table = PoisonTable()
    note(table, b"a", 2, 10.0, 5.0)
    assert recall(table, b"a", 14.9) == 2
    assert recall(table, b"b", 14.9) is None
    assert recall(table, b"a", 15.0) is None
    assert len(table) == 0


def test_a_suspicion_is_not_a_conviction():
    """Only an input that reached the number of lone deaths moves `convicted_at`."""
    table = PoisonTable()
    note(table, b"a", 0, 10.0, 5.0)
    note(table, b"b", 1, 11.0, 5.0)
    assert table.convicted_at < 10.0
    note(table, b"b", 2, 12.0, 5.0)
    assert table.convicted_at == 12.0


def test_a_suspicion_undoes_no_conviction():
    """An input noted again keeps the larger number of deaths and the later end."""
    table = PoisonTable()
    note(table, b"a", 2, 10.0, 50.0)
    note(table, b"a", 0, 11.0, 5.0)
    assert recall(table, b"a", 59.0) == 2
    assert recall(table, b"a", 60.0) is None


def test_poison_can_be_forgiven_and_released():
    """One input, or all, can be forgotten before its time."""
    table = PoisonTable()
    for digest in (b"a", b"b", b"c"):
        note(table, digest, 2, 10.0, 5.0)
    table.forgive((ANN, b"a"))
    assert [recall(table, digest, 11.0) for digest in (b"a", b"b")] == [None, 2]
    table.clear()
    assert len(table) == 0


def test_the_memory_for_poison_is_bounded():
    """Beyond the bound the one noted first is forgotten; noting one again makes it new."""
    table = PoisonTable()
    for number in range(MAX_POISONS):
        note(table, b"%d" % number, 2, 10.0, 5.0)
    note(table, b"0", 2, 10.0, 5.0)
    note(table, b"more", 2, 10.0, 5.0)
    assert len(table) == MAX_POISONS
    assert recall(table, b"0", 11.0) == 2
    assert recall(table, b"1", 11.0) is None


def test_what_one_client_sent_is_held_against_no_other():
    """The same bytes of another client are another input."""
    table = PoisonTable()
    note(table, b"a", 2, 10.0, 5.0)
    assert table.recall((BOB, b"a"), 11.0) is None


def test_the_deaths_of_an_input_are_kept_once_and_bounded():
    """A life is remembered once, however often it is noted, and only so many of them."""
    table = PoisonTable()
    for generation in range(3 * MAX_DEATHS_KEPT):
        for _ in range(2):
            table.note((ANN, b"a"), 1, [make_worker(generation=generation)], 10.0, 5.0)
    known = table.recall((ANN, b"a"), 11.0)
    assert known is not None
    assert [life.generation for life in known.deaths] == list(range(2 * MAX_DEATHS_KEPT, 3 * MAX_DEATHS_KEPT))
