"""Inputs that ended workers: when one is convicted, how long it is remembered, and what clears it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.desk import HUNG, TENANT, Desk, make_request
from tests.support.suspects import POISON, die_with, run
from trtd.core.cuda_faults import sticky_fault
from trtd.core.dispatch import Refuse, TenantLimits
from trtd.core.faults import Fault, FaultKind
from trtd.core.inflight import SUSPICION_S
from trtd.errors import ErrorCode


def test_a_request_is_convicted_after_two_lone_deaths():
    """Once can be chance; twice alone in a dying worker is not, and the message says how the worker ended."""
    desk = Desk()
    request = make_request()
    worker = die_with(desk, request)
    assert desk.refused() == {}
    desk.die(worker, Fault(FaultKind.CRASHED, "SIGSEGV at 0x0"))
    [refuse] = desk.take(Refuse)
    assert refuse.request is request
    assert refuse.code is ErrorCode.POISONOUS
    assert "it crashed" in refuse.message


def test_poison_is_refused_at_the_door_for_its_time():
    """The same input is refused without a worker, another one is not; after `poison_s` it may try again."""
    desk = Desk(TenantLimits(poison_s=100.0))
    desk.die(die_with(desk, make_request(payload=POISON)))
    desk.take(Refuse)
    again, other = make_request(payload=POISON), make_request(payload=(b"fine",))
    desk.submit(again, other)
    assert desk.refused() == {again: ErrorCode.POISONOUS}
    desk.now += 100.0
    desk.submit_new(payload=POISON)
    assert ErrorCode.POISONOUS not in desk.refused().values()


def test_an_operator_releases_poison():
    """After `release_poison` the input is taken as any other."""
    desk = Desk()
    desk.die(die_with(desk, make_request(payload=POISON)))
    desk.take(Refuse)
    desk.dispatcher.release_poison(TENANT)
    request = desk.submit_new(payload=POISON)
    assert desk.refused() == {}
    assert not request.is_suspect


def test_poison_that_waits_already_is_convicted_with_the_first():
    """Copies of a poisonous input in the queue end no further worker once the first is convicted."""
    desk = Desk(TenantLimits(max_outstanding=1))
    worker = desk.admit()
    copies = [make_request(payload=POISON) for _ in range(10)]
    fine = make_request(payload=(b"fine",))
    desk.submit(*copies, fine)
    _, deaths = run(desk, worker)
    assert deaths == 2
    assert desk.refused() == dict.fromkeys(copies, ErrorCode.POISONOUS)
    assert desk.delivered() == [fine]


def test_copies_among_the_suspects_do_not_undo_the_conviction():
    """Copies that died with the convicted one are refused with it, and the input stays poisonous at the door."""
    desk = Desk()
    worker = desk.admit()
    copies = [make_request(payload=POISON) for _ in range(3)]
    desk.submit(*copies)
    _, deaths = run(desk, worker)
    assert deaths == 3
    assert desk.refused() == dict.fromkeys(copies, ErrorCode.POISONOUS)
    again = desk.submit_new(payload=POISON)
    assert desk.refused() == {again: ErrorCode.POISONOUS}


def test_a_request_that_hangs_its_worker_is_found_by_its_retry():
    """It expires while its worker hangs and is killed: the client's retry goes on counting, and is convicted."""
    desk = Desk()
    worker = desk.admit()
    hung = desk.submit_new(payload=POISON, deadline=desk.now + 1.0)
    desk.wait(1.0)
    assert desk.refused() == {hung: ErrorCode.DEADLINE_EXCEEDED}
    worker = desk.admit(desk.die(worker, HUNG))
    assert desk.held_by(worker) == []
    retry = desk.submit_new(payload=POISON)
    assert retry.is_suspect
    desk.die(worker, HUNG)
    assert desk.refused() == {retry: ErrorCode.POISONOUS}


def test_the_retry_of_a_ghost_that_died_among_others_runs_alone():
    """Which of several expired requests hung the worker is open: their retries run one by one and are cleared."""
    desk = Desk()
    worker = desk.admit()
    payloads = [(b"%d" % number,) for number in range(3)]
    desk.submit(*(make_request(payload=payload, deadline=desk.now + 1.0) for payload in payloads))
    desk.wait(1.0)
    worker = desk.admit(desk.die(worker))
    retries = [make_request(payload=payload, received_at=desk.now) for payload in payloads]
    desk.submit(*retries)
    for retry in retries:
        assert desk.held_by(worker) == [retry]
        desk.answer(worker)
    third = desk.submit_new(payload=payloads[0])
    assert not third.is_suspect


def test_copies_of_a_cleared_input_leave_the_lane():
    """Once a worker answers a suspected input, its copies that wait as suspects are normal work again."""
    desk = Desk()
    worker = desk.admit()
    desk.submit_new(payload=(b"same",), deadline=desk.now + 1.0)
    desk.wait(1.0)
    worker = desk.admit(desk.die(worker))
    copies = [make_request(payload=(b"same",), received_at=desk.now) for _ in range(5)]
    desk.submit(*copies)
    assert desk.held_by(worker) == copies[:1]
    desk.answer(worker)
    assert desk.held_by(worker) == copies[1:]


def test_a_mere_suspicion_ends_soon():
    """An input that was suspected and never tried again is forgotten long before poison is."""
    desk = Desk()
    worker = desk.admit()
    desk.submit_new(payload=(b"same",), deadline=desk.now + 1.0)
    desk.wait(1.0)
    desk.die(worker)
    desk.now += SUSPICION_S
    assert not desk.submit_new(payload=(b"same",)).is_suspect


def test_a_late_answer_of_a_suspected_ghost_clears_its_input():
    """The worker survived it after all: a retry is no suspect."""
    desk = Desk()
    request = make_request(payload=(b"slow",), deadline=1005.0)
    worker = die_with(desk, request)
    desk.wait(5.0)
    assert desk.refused() == {request: ErrorCode.DEADLINE_EXCEEDED}
    desk.answer(worker)
    assert not desk.submit_new(payload=(b"slow",)).is_suspect


def test_a_suspect_that_its_worker_dropped_untried_is_not_cleared():
    """A worker that gives an expired suspect back has not survived it: the retry is a suspect again."""
    desk = Desk()
    worker = die_with(desk, make_request(payload=POISON, deadline=1005.0))
    desk.wait(5.0)
    desk.answer(worker, code=ErrorCode.DEADLINE_EXCEEDED)
    retry = desk.submit_new(payload=POISON)
    assert retry.is_suspect
    assert retry.lone_deaths == 1


@pytest.mark.parametrize("end", ["expiry", "unavailable"])
def test_a_suspect_that_ends_unanswered_is_remembered(end):
    """Whatever ends a suspect before a worker answers it, its retry is a suspect with the deaths it had."""
    desk = Desk()
    worker = desk.admit()
    changes: dict[str, Any] = {"deadline": desk.now + 1.0} if end == "expiry" else {}
    request = desk.submit_new(payload=POISON, **changes)
    desk.die(worker)
    if end == "expiry":
        desk.wait(1.0)
    else:
        desk.dispatcher.set_availability(TENANT, False, "quarantined", None, desk.now)
        desk.dispatcher.set_availability(TENANT, True, "", None, desk.now)
    desk.turn()
    assert request in desk.refused()
    retry = desk.submit_new(payload=POISON)
    assert retry.is_suspect
    assert retry.lone_deaths == 1


ECC = sticky_fault(214, "run of model 'mlp'")
NEIGHBOUR = sticky_fault(810, "run of model 'mlp'")
SILENT = Fault(FaultKind.BEAT_MISSED, "gave no life sign for 1 s")
SIGKILL = Fault(FaultKind.KILLED, "killed by SIGKILL")


@pytest.mark.parametrize("fault", [ECC, NEIGHBOUR, SILENT, SIGKILL], ids=["ECC", "neighbour", "silence", "SIGKILL"])
def test_an_innocent_is_not_convicted_of_what_no_input_does(fault):
    """However often a worker ends with one request in its hands, of such causes the request is never poisonous."""
    desk = Desk(TenantLimits(max_attempts=6))
    worker = desk.admit()
    request = desk.submit_new(payload=(b"innocent",))
    for _ in range(5):
        worker = desk.admit(desk.die(worker, fault))
        assert desk.held_by(worker) == [request]
    desk.answer(worker)
    assert desk.delivered() == [request]
    assert not desk.submit_new(payload=(b"innocent",)).is_suspect
    assert desk.refused() == {}


@pytest.mark.parametrize(("fault", "runs_apart"), [(ECC, False), (NEIGHBOUR, False), (SILENT, True), (SIGKILL, True)])
def test_what_an_input_may_have_done_runs_apart(fault, runs_apart):
    """After a fault of the device everything is replayed together; after one that has several causes, in groups."""
    desk = Desk()
    worker = desk.admit()
    requests = [make_request() for _ in range(16)]
    desk.submit(*requests)
    worker = desk.admit(desk.die(worker, fault))
    assert len(desk.held_by(worker)) == (2 if runs_apart else 16)


def test_a_device_fault_between_two_crashes_does_not_hide_the_culprit():
    """The two deaths that convict need not follow each other."""
    desk = Desk()
    request = make_request(payload=POISON)
    worker = die_with(desk, request)
    worker = desk.admit(desk.die(worker, ECC))
    assert desk.refused() == {}
    desk.die(worker)
    assert desk.refused() == {request: ErrorCode.POISONOUS}
