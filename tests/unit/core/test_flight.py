"""Requests that were in hand when routers died: found by groups, then alone, and innocents go free."""

from __future__ import annotations

import random
from collections.abc import Iterable

from trtd.core.flight import MAX_IN_HAND, PAGE_BYTES, Flight
from trtd.core.ids import RequestId, TenantName
from trtd.core.requests import Request
from trtd.core.suspects import ALONE_S, MAX_OF_ONE_OWNER, WATCH_S, ResentRequests


def id_of(number: int) -> RequestId:
    return RequestId(number.to_bytes(16, "big"))


def request(number: int, owner: str = "ann", *, is_resent: bool = True, deadline: float = 1e9) -> Request:
    return Request(id_of(number), TenantName("a"), owner, None, (), 0, 0, 0.0, deadline, is_resent=is_resent)


class Router:
    """One life of a router, as far as requests are taken by it."""

    def __init__(self, page: bytearray, now: float = 0.0) -> None:
        self.flight = Flight(page)
        self.taken: list[RequestId] = []
        self.convicted: list[RequestId] = []
        self.door = ResentRequests(
            self.flight,
            lambda one, _: self.taken.append(one.id),
            lambda one, _: self.convicted.append(one.id),
            now,
        )

    def submit(self, requests: Iterable[Request], now: float = 0.0) -> None:
        for one in requests:
            self.door.submit(one, now)

    def answer_all(self, now: float = 0.0) -> list[RequestId]:
        """Answer what was taken, until nothing more is."""
        answered = []
        while self.taken:
            answered.append(self.taken.pop(0))
            self.door.note_answered(answered[-1], now)
        return answered


def lives(count: int, culprit: int) -> tuple[int, set[RequestId]]:
    """Let a router die whenever it has taken the culprit and answered all before: the deaths, and the answered."""
    page = bytearray(PAGE_BYTES)
    Flight(page)
    waiting = {id_of(number) for number in range(count)}
    answered: set[RequestId] = set()
    for deaths in range(1, 20):
        router = Router(page)
        order = sorted(waiting - answered)
        random.Random(deaths).shuffle(order)
        router.submit(request(int.from_bytes(one, "big")) for one in order)
        while router.taken and id_of(culprit) not in router.taken:
            one = router.taken.pop(0)
            answered.add(one)
            router.door.note_answered(one, 0.0)
        if id_of(culprit) in router.convicted:
            answered |= set(router.answer_all())
            return deaths, answered
        assert not router.convicted
    raise AssertionError("nobody was convicted")


def test_the_culprit_is_found_and_everybody_else_is_answered():
    """Among so many requests in flight, with a few deaths more where there are more, and no innocent is refused."""
    for count, most in ((1, 3), (2, 4), (8, 4), (30, 6)):
        for culprit in {0, count // 2, count - 1}:
            deaths, answered = lives(count, culprit)
            assert deaths <= most
            assert answered == {id_of(number) for number in range(count)} - {id_of(culprit)}


def test_what_a_router_that_ended_well_had_in_hand_is_not_suspected():
    """Nor is what was answered before the end, nor anything on a page that nobody has written."""
    page = bytearray(PAGE_BYTES)
    assert not Flight(page).has_crashed
    flight = Flight(page)
    assert flight.has_crashed
    assert flight.take(id_of(1))
    assert flight.take(id_of(2))
    flight.let_go(id_of(1))
    assert Flight(page).suspects == {id_of(2): 1}
    flight = Flight(page)
    flight.take(id_of(3))
    flight.land()
    assert not Flight(page).suspects
    assert not Flight(bytearray(random.Random(0).randbytes(PAGE_BYTES))).suspects


def test_what_was_never_sent_again_passes_at_once():
    """Also while others wait, and nothing of it is written."""
    page = bytearray(PAGE_BYTES)
    Flight(page).take(id_of(1))
    router = Router(page)
    router.submit([request(1), request(2), request(3, is_resent=False)])
    assert router.taken == [id_of(1), id_of(3)]
    assert list(router.flight.in_hand) == [id_of(1)]
    assert router.answer_all() == [id_of(1), id_of(3), id_of(2)]


def test_who_lies_about_having_sent_before_has_no_more_than_its_share():
    """One client's requests fill a part of the page, all are taken at once, and those of others are still written."""
    router = Router(bytearray(PAGE_BYTES))
    router.submit(request(number, "liar") for number in range(2 * MAX_IN_HAND))
    router.submit([request(9999, "bob")])
    assert len(router.taken) == 2 * MAX_IN_HAND + 1
    assert len(router.flight.in_hand) == MAX_OF_ONE_OWNER + 1
    router.answer_all()
    router.submit([request(7, "liar")], WATCH_S)
    assert router.taken == [id_of(7)]
    assert not router.flight.in_hand


def test_nobody_waits_for_long_and_deadlines_are_kept():
    """What takes long lets others in after a while; who waits past its deadline is handed on, to be told so."""
    page = bytearray(PAGE_BYTES)
    Flight(page).take(id_of(1))
    router = Router(page)
    router.submit([request(1), request(2), request(3, deadline=1.0)])
    assert router.taken == [id_of(1)]
    router.door.advance(1.0)
    assert router.taken == [id_of(1), id_of(3)]
    router.door.advance(ALONE_S)
    assert router.taken == [id_of(1), id_of(3), id_of(2)]
    assert not router.door.is_waiting
