"""Who ended the worker? Replay, suspicion, bisection, and that innocents are answered meanwhile."""

from __future__ import annotations

import pytest

from tests.support.desk import REQUESTED, TENANT, Desk, groups, make_request, make_worker
from tests.support.suspects import POISON, die_with, run
from trtd.core.dispatch import Dispatch, Refuse, TenantLimits
from trtd.core.faults import Fault, FaultKind
from trtd.core.inflight import SUSPECT_PATIENCE_S
from trtd.errors import ErrorCode


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


def test_attempts_are_bounded():
    """Whoever was given to `max_attempts` workers gets WORKER_LOST, with the reason of the last death."""
    desk = Desk(TenantLimits(max_attempts=2))
    requests = [make_request() for _ in range(16)]
    worker = die_with(desk, *requests)
    assert desk.refused() == {}
    desk.die(worker, Fault(FaultKind.KILLED, "killed by SIGKILL"))
    lost = desk.take(Refuse)
    assert [refuse.request for refuse in lost] == requests[:2]
    assert {refuse.code for refuse in lost} == {ErrorCode.WORKER_LOST}
    assert "it was killed" in lost[0].message


def test_a_death_that_blames_no_request_leaves_no_suspects():
    """What a worker held that the daemon itself ended is replayed as it was, together and in order."""
    desk = Desk()
    worker = desk.admit()
    requests = [make_request() for _ in range(16)]
    desk.submit(*requests)
    successor = desk.die(worker, REQUESTED)
    desk.take(Dispatch)
    desk.admit(successor)
    [dispatch] = desk.take(Dispatch)
    assert [request for _, request in dispatch.requests] == requests
    assert not dispatch.must_run_alone
    for _ in range(2):
        successor = desk.admit(desk.die(successor, REQUESTED))
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
