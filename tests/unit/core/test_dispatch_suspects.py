"""Who ended the worker? Replay, suspicion, bisection, conviction, and that innocents are answered meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.desk import TENANT, Desk, groups, make_request, make_worker
from trtd.core.dispatch import Dispatch, Refuse, Request, TenantLimits
from trtd.core.ids import WorkerId
from trtd.core.inflight import SUSPECT_PATIENCE_S, SUSPICION_S
from trtd.errors import ErrorCode

POISON = (b"poison",)


def is_poison(request: Request) -> bool:
    """Whether a worker that runs this dies."""
    return request.payload == POISON


def run(desk: Desk, worker: WorkerId, most_turns: int = 1000) -> tuple[WorkerId, int]:
    """Let one replica work until nothing waits, dying of poison; its last life and how many it took."""
    deaths = 0
    for _ in range(most_turns):
        held = desk.held_by(worker)
        if not held:
            return worker, deaths
        if any(is_poison(request) for request in held):
            deaths += 1
            worker = desk.admit(desk.die(worker))
        else:
            desk.answer(worker)
    raise AssertionError("it never ends")


def die_with(desk: Desk, *requests: Request) -> WorkerId:
    """A worker takes these and dies; the admitted successor."""
    worker = desk.admit()
    desk.submit(*requests)
    return desk.admit(desk.die(worker))


def test_what_a_dead_worker_held_goes_to_its_successor():
    """One death costs the client nothing but time: the request is leased again and answered once."""
    desk = Desk()
    request = make_request()
    worker = die_with(desk, request)
    assert desk.held_by(worker) == [request]
    assert desk.dispatcher.tenant(TENANT).counters.replayed == 1
    desk.answer(worker)
    assert desk.delivered() == [request]
    assert desk.refused() == {}


def test_suspects_run_in_groups_of_their_own_before_normal_work():
    """Of 16 that died together pairs run alone, one pair after the other, and normal work of that worker waits."""
    desk = Desk()
    suspects = [make_request() for _ in range(16)]
    worker = die_with(desk, *suspects)
    desk.take(Dispatch)
    normal = desk.submit_new(priority=7)
    seen = [desk.held_by(worker)]
    while normal not in seen[-1]:
        desk.answer(worker)
        seen.append(desk.held_by(worker))
    assert seen == [suspects[first : first + 2] for first in range(0, 16, 2)] + [[normal]]
    assert [dispatch.must_run_alone for dispatch in desk.take(Dispatch)] == [True] * 7 + [False]


def test_a_group_waits_for_all_of_the_one_before():
    """As long as one suspect is not answered, its worker gets neither the next group nor normal work."""
    desk = Desk()
    worker = die_with(desk, *(make_request() for _ in range(16)))
    desk.submit_new()
    first, second = desk.held_by(worker)
    desk.answer(worker, first)
    assert desk.held_by(worker) == [second]


@pytest.mark.parametrize("count", [1, 2, 8, 9, 64])
def test_the_one_poisonous_request_is_found_and_all_others_are_answered(count):
    """Whatever its place in the batch: innocents are answered, the culprit is told so, in few deaths."""
    for place in {0, count // 2, count - 1}:
        desk = Desk()
        worker = desk.admit()
        requests = [make_request(payload=(b"%d" % number,)) for number in range(count)]
        requests[place].payload = POISON
        desk.submit(*requests)
        _, deaths = run(desk, worker)
        assert desk.refused() == {requests[place]: ErrorCode.POISONOUS}
        assert len(desk.delivered()) == count - 1
        assert deaths <= 4


def test_two_poisonous_requests_are_both_found():
    """Each group is followed on its own, and the same input is convicted for both at once."""
    desk = Desk()
    worker = desk.admit()
    requests = [make_request(payload=POISON if number in (3, 40) else (b"%d" % number,)) for number in range(64)]
    desk.submit(*requests)
    run(desk, worker)
    assert desk.refused() == {requests[3]: ErrorCode.POISONOUS, requests[40]: ErrorCode.POISONOUS}
    assert len(desk.delivered()) == 62


def test_a_request_is_convicted_after_two_lone_deaths():
    """Once can be chance; twice alone in a dying worker is not, and the message says how the worker ended."""
    desk = Desk()
    request = make_request()
    worker = die_with(desk, request)
    assert desk.refused() == {}
    desk.die(worker, "SIGSEGV at 0x0")
    [refuse] = desk.take(Refuse)
    assert refuse.request is request
    assert refuse.code is ErrorCode.POISONOUS
    assert "SIGSEGV at 0x0" in refuse.message


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


def test_attempts_are_bounded():
    """Whoever was given to `max_attempts` workers gets WORKER_LOST, with the reason of the last death."""
    desk = Desk(TenantLimits(max_attempts=2))
    requests = [make_request() for _ in range(16)]
    worker = die_with(desk, *requests)
    assert desk.refused() == {}
    desk.die(worker, "killed by signal 9")
    lost = desk.take(Refuse)
    assert [refuse.request for refuse in lost] == requests[:2]
    assert {refuse.code for refuse in lost} == {ErrorCode.WORKER_LOST}
    assert "killed by signal 9" in lost[0].message


def test_a_death_that_blames_no_request_leaves_no_suspects():
    """What a worker held that the daemon itself ended is replayed as it was, together and in order."""
    desk = Desk()
    worker = desk.admit()
    requests = [make_request() for _ in range(16)]
    desk.submit(*requests)
    successor = desk.die(worker, blames_requests=False)
    desk.take(Dispatch)
    desk.admit(successor)
    [dispatch] = desk.take(Dispatch)
    assert [request for _, request in dispatch.requests] == requests
    assert not dispatch.must_run_alone
    for _ in range(2):
        successor = desk.admit(desk.die(successor, blames_requests=False))
    assert desk.refused() == {}


def test_other_replicas_go_on_with_normal_work():
    """While suspects run on the successor, the other replica takes normal work only."""
    desk = Desk()
    one, two = desk.admit(make_worker(0)), desk.admit(make_worker(1))
    suspects = [make_request() for _ in range(4)]
    desk.submit(*suspects)
    held_by_one = desk.held_by(one)
    successor = desk.admit(desk.die(one))
    normal = [make_request() for _ in range(4)]
    desk.submit(*normal)
    assert desk.held_by(successor) == held_by_one[:1]
    assert [request for request in normal if request in desk.held_by(two)] == normal


def test_suspects_wait_for_the_successor_rather_than_endanger_a_healthy_replica():
    """A poisonous request ends one replica again and again, and never the other one."""
    desk = Desk()
    one, two = desk.admit(make_worker(0)), desk.admit(make_worker(1))
    poison, fine = make_request(payload=POISON), make_request(payload=(b"fine",))
    desk.submit(poison, fine)
    assert desk.held_by(one) == [poison]
    successor = desk.die(one)
    desk.answer(two)
    assert desk.held_by(two) == []
    desk.wait(SUSPECT_PATIENCE_S / 2)
    successor = desk.admit(successor)
    assert desk.held_by(successor) == [poison]
    desk.die(successor)
    assert desk.refused() == {poison: ErrorCode.POISONOUS}


def test_the_lane_waits_for_the_replica_that_died_last():
    """A replica that died earlier, and whose suspects were answered, is as healthy as any other one."""
    desk = Desk()
    one, two = desk.admit(make_worker(0)), desk.admit(make_worker(1))
    desk.submit(make_request(), make_request())
    one = desk.admit(desk.die(one))
    desk.answer(one)
    desk.answer(two)
    desk.submit(make_request(), make_request())
    [suspect] = desk.held_by(two)
    desk.answer(one)
    successor = desk.die(two)
    assert desk.held_by(one) == []
    assert desk.held_by(desk.admit(successor)) == [suspect]


def test_patience_with_a_missing_successor_ends():
    """If no successor comes, the other replica takes the suspects, as soon as it holds nothing else."""
    desk = Desk()
    one, two = desk.admit(make_worker(0)), desk.admit(make_worker(1))
    suspect, normal = make_request(), make_request()
    desk.submit(suspect, normal)
    desk.die(one)
    assert desk.dispatcher.next_deadline() == desk.now + SUSPECT_PATIENCE_S
    desk.wait(SUSPECT_PATIENCE_S)
    waiting = desk.submit_new()
    assert desk.held_by(two) == [normal]
    desk.answer(two)
    assert desk.held_by(two) == [suspect]
    desk.answer(two)
    assert desk.held_by(two) == [waiting]


def test_a_lane_that_empties_lets_its_worker_go():
    """When the suspects expire before their worker is free, it takes normal work again at once."""
    desk = Desk()
    one, two = desk.admit(make_worker(0)), desk.admit(make_worker(1))
    suspect = make_request(deadline=desk.now + SUSPECT_PATIENCE_S + 1.0)
    busy = make_request()
    desk.submit(suspect, busy)
    desk.die(one)
    desk.wait(SUSPECT_PATIENCE_S)
    waiting = desk.submit_new()
    assert desk.held_by(two) == [busy]
    desk.wait(1.0)
    assert desk.refused() == {suspect: ErrorCode.DEADLINE_EXCEEDED}
    assert desk.held_by(two) == [busy, waiting]


def test_a_lane_whose_worker_is_closed_takes_another():
    """Closing the worker that the lane waits for does not hold up the suspects."""
    desk = Desk()
    one, two, three = (desk.admit(make_worker(replica)) for replica in range(3))
    requests = [make_request() for _ in range(3)]
    desk.submit(*requests)
    desk.die(one)
    desk.wait(SUSPECT_PATIENCE_S)
    desk.dispatcher.close_worker(two, desk.now)
    desk.answer(three)
    assert desk.held_by(three) == [requests[0]]


def test_a_detached_group_stays_a_group():
    """Suspects whose worker loses its connection wait again, together and first, with no further suspicion."""
    desk = Desk()
    worker = die_with(desk, *(make_request() for _ in range(16)))
    group = desk.held_by(worker)
    desk.leases.clear()
    desk.dispatcher.detach_worker(worker, desk.now)
    desk.admit(worker)
    assert desk.held_by(worker) == group
    assert [request.attempts for request in group] == [2, 2]


def test_a_request_that_hangs_its_worker_is_found_by_its_retry():
    """It expires while its worker hangs and is killed: the client's retry goes on counting, and is convicted."""
    desk = Desk()
    worker = desk.admit()
    hung = desk.submit_new(payload=POISON, deadline=desk.now + 1.0)
    desk.wait(1.0)
    assert desk.refused() == {hung: ErrorCode.DEADLINE_EXCEEDED}
    worker = desk.admit(desk.die(worker, "no progress for 30 s"))
    assert desk.held_by(worker) == []
    retry = desk.submit_new(payload=POISON)
    assert retry.is_suspect
    desk.die(worker, "no progress for 30 s")
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


def test_suspects_of_a_dying_group_go_before_the_groups_that_wait():
    """The search narrows: halves of the group that died are tried before the other groups."""
    desk = Desk()
    suspects = [make_request() for _ in range(16)]
    worker = die_with(desk, *suspects)
    desk.answer(worker)
    desk.answer(worker)
    worker = desk.admit(desk.die(worker))
    assert desk.held_by(worker) == suspects[4:5]
    desk.answer(worker)
    assert desk.held_by(worker) == suspects[5:6]
    desk.answer(worker)
    assert desk.held_by(worker) == suspects[6:8]


def test_a_group_larger_than_a_message_still_runs_as_one():
    """With very many leases a group may exceed one message; it is sent in several, all marked."""
    desk = Desk(TenantLimits(max_outstanding=1000, max_requests=1000))
    die_with(desk, *(make_request() for _ in range(640)))
    alone = [dispatch for dispatch in desk.take(Dispatch) if dispatch.must_run_alone]
    assert [len(group) for group in groups(alone)] == [64, 16]
