"""Who leads and who is waited for, without any connection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from tests.unit.client.test_exchange import make_id
from trtd.client import Handle, lead
from trtd.client.handle import Waits
from trtd.client.lead import Lead

WAIT_S = 10.0


@pytest.fixture
def leading() -> Iterator[Lead]:
    lead = Lead()
    yield lead
    lead.close()


def make_handle(number: int) -> Handle[Any]:
    return Handle(cast("Waits", None), make_id(number))


def test_the_lead_goes_to_who_sat_down_last(leading):
    """The thread that most likely waits for longest leads next, and the others stay where they are."""
    seats = [leading.sit_down(make_handle(number)) for number in range(3)]
    assert leading.give_up()
    assert [seat.is_offered for seat in seats] == [False, False, True]
    assert list(leading.followers) == seats[:2]
    assert leading.is_mine
    assert leading.handle is seats[2].handle


def test_all_who_wait_for_a_handle_go_on(leading):
    """Every thread that waits for a handle is released, once, and the handle knows no seats any more."""
    one, other = make_handle(1), make_handle(2)
    seats = [leading.sit_down(one), leading.sit_down(one), leading.sit_down(other)]
    assert leading.release(one) == 2
    for seat in seats[:2]:
        seat.wait(float("inf"))
    assert leading.release(one) == 0
    assert list(leading.followers) == seats[2:]


def test_the_last_one_back_ends_the_gathering(leading, monkeypatch):
    """The leader goes on as soon as every thread that was due back is there."""
    monkeypatch.setattr(lead, "GATHER_S", 60.0)
    leading.due_back = 3
    with ThreadPoolExecutor(1) as pool:
        gathering = pool.submit(leading.gather)
        for _ in range(3):
            assert not gathering.done()
            leading.come_back()
        gathering.result(WAIT_S)
    assert leading.due_back == 0


def test_nobody_is_waited_for_in_vain_again_and_again(leading, monkeypatch):
    """Each time that too few come back in time the leader leaves more gatherings out, and fewer when enough do."""
    for left_out in (1, 3, 7, 15, 31, 63, 63):
        monkeypatch.setattr(lead, "GATHER_S", 0.0)
        leading.due_back = 2
        leading.gather()
        monkeypatch.setattr(lead, "GATHER_S", 60.0)
        leave_out(leading, left_out)
    for left_out in (31, 15, 7, 3, 1, 0):
        gather_with(leading, 2)
        leave_out(leading, left_out)


@pytest.mark.parametrize(("due", "came", "is_worth_it"), [(3, 3, True), (3, 2, False), (32, 4, True), (32, 3, False)])
def test_all_of_them_or_many_are_worth_it(leading, monkeypatch, due, came, is_worth_it):
    """All threads that are due back make it worth while to have waited, and so do a few of very many."""
    monkeypatch.setattr(lead, "GATHER_S", 60.0)
    leading.due_back = due
    with ThreadPoolExecutor(1) as pool:
        gathering = pool.submit(leading.gather)
        while leading._gathering is None:
            pass
        for _ in range(came):
            leading.come_back()
        if leading._gathering is not None:
            # As if the time was up.
            leading._gathering.release()
        gathering.result(WAIT_S)
    assert (leading._pauses == 0) == is_worth_it
    assert leading.due_back == 0


def leave_out(leading: Lead, count: int) -> None:
    """The next gatherings, so many of which must not wait for anybody."""
    for _ in range(count):
        leading.due_back = 2
        leading.gather()
        assert leading.due_back == 0


def gather_with(leading: Lead, count: int) -> None:
    """Threads come back while the leader waits for them."""
    leading.due_back = count

    def come_back() -> None:
        while leading._gathering is None:
            pass
        for _ in range(count):
            leading.come_back()

    thread = threading.Thread(target=come_back)
    thread.start()
    leading.gather()
    thread.join()
