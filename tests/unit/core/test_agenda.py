"""Deadlines and other instants, in order, without room for what is answered."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.support.desk import TENANT, make_request
from trtd.core.agenda import Agenda
from trtd.core.requests import Request, TenantLimits
from trtd.core.tenancy import Tenant


def answer(agenda: Agenda, request: Request) -> None:
    """The request has its answer."""
    request.is_answered = True
    agenda.note_answered()


def test_what_is_due_comes_up_in_the_order_of_its_instants():
    """Requests and tenants come up at their instant, one at a time, and not before."""
    agenda = Agenda()
    late, early, tenant = make_request(deadline=3.0), make_request(deadline=1.0), Tenant(TENANT, TenantLimits())
    for request in (late, early):
        agenda.watch_deadline(request)
    agenda.look_again(tenant, 2.0)
    assert agenda.soonest == 1.0
    assert [agenda.take_due(2.0) for _ in range(3)] == [early, tenant, None]
    assert agenda.soonest == 3.0


def test_an_answered_request_does_not_come_up():
    """Neither at its deadline nor later; the agenda forgets it when its time comes."""
    agenda = Agenda()
    first, second = make_request(deadline=1.0), make_request(deadline=2.0)
    for request in (first, second):
        agenda.watch_deadline(request)
    answer(agenda, first)
    assert agenda.take_due(1.5) is None
    assert agenda.soonest == 2.0
    assert agenda.take_due(5.0) is second
    answer(agenda, second)
    assert agenda.watched() == set()


def test_answered_requests_do_not_pile_up_behind_an_early_deadline():
    """However many requests with long deadlines are answered, the agenda stays small, and keeps its order."""
    agenda = Agenda()
    agenda.watch_deadline(make_request(deadline=0.0))
    waiting = []
    for number in range(20_000):
        request = make_request(deadline=1.0 + number * 7919 % 20_011)
        agenda.watch_deadline(request)
        if number % 100:
            answer(agenda, request)
        else:
            waiting.append(request)
        assert len(agenda) < 3000
        if len(agenda) == len(waiting) + 1 > 100:
            break
    agenda.take_due(0.0)
    assert [agenda.take_due(1e9) for _ in waiting] == sorted(waiting, key=lambda request: request.deadline)


def test_requests_that_expire_are_not_taken_for_answered_ones_that_stay():
    """A request that came up is gone from the agenda: its answer makes nothing stale, so nothing is rebuilt for it."""
    agenda = Agenda()
    staying = [make_request(deadline=1e9) for _ in range(100)]
    for request in staying:
        agenda.watch_deadline(request)
    for _ in range(5000):
        expired = make_request(deadline=1.0)
        agenda.watch_deadline(expired)
        assert agenda.take_due(1.0) is expired
        answer(agenda, expired)
    assert agenda.stale == 0
    assert agenda.watched() == {id(request) for request in staying}


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=40), st.lists(st.integers(0, 25), max_size=6))
def test_deadlines_in_any_order_come_up_in_theirs(deadlines, instants):
    """Whether deadlines rise or not, and whatever was answered, the rest comes up when it is due, earliest first."""
    agenda = Agenda()
    waiting = []
    for deadline, is_answered in deadlines:
        request = make_request(deadline=float(deadline))
        agenda.watch_deadline(request)
        if is_answered:
            answer(agenda, request)
        else:
            waiting.append(request)
    waiting.sort(key=lambda request: request.deadline)
    for now in sorted(instants):
        while (due := agenda.take_due(now)) is not None:
            assert due.deadline == waiting.pop(0).deadline <= now
            answer(agenda, due)
        assert agenda.watched() == {id(request) for request in waiting}
        assert all(request.deadline > now for request in waiting)
        first = agenda.soonest
        assert first == (waiting[0].deadline if waiting else math.inf)
