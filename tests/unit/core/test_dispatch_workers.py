"""The router's mind and its workers: room, messages, generations, closing, detaching, fair order."""

from __future__ import annotations

import pytest

from tests.support.desk import CRASHED, TENANT, Desk, groups, make_request, make_worker
from trtd.core.dispatch import AnnounceWorkerEmpty, Dispatch, TenantLimits
from trtd.core.ids import LeaseId, TenantName
from trtd.core.inflight import GATHER_S
from trtd.errors import ErrorCode


def first_leases(desk: Desk, count: int) -> list[TenantName]:
    """Whose requests got the first leases."""
    leases = sorted((lease, request.tenant) for effect in desk.take(Dispatch) for lease, request in effect.requests)
    return [tenant for _, tenant in leases[:count]]


def test_requests_wait_until_a_worker_is_admitted():
    """An open and available tenant without a worker queues."""
    desk = Desk()
    request = desk.submit_new()
    assert desk.dispatcher.tenant(TENANT).queued == 1
    worker = desk.admit()
    assert desk.held_by(worker) == [request]


def test_a_worker_holds_no_more_than_its_room():
    """`max_outstanding` bounds what a worker holds; each answer lets one more in."""
    desk = Desk(TenantLimits(max_outstanding=3))
    worker = desk.admit()
    requests = [make_request() for _ in range(5)]
    desk.submit(*requests)
    assert desk.held_by(worker) == requests[:3]
    desk.answer(worker, requests[1])
    assert desk.held_by(worker) == [requests[0], requests[2], requests[3]]


def test_many_requests_travel_in_few_messages():
    """One message per worker and turn, split only beyond 64 entries."""
    desk = Desk(TenantLimits(max_outstanding=200))
    desk.submit(*(make_request() for _ in range(150)))
    desk.admit()
    assert [len(group) for group in groups(desk.take(Dispatch))] == [64, 64, 22]


def test_the_replica_with_the_fewest_leases_is_given_the_next():
    """Work spreads evenly over replicas, and goes where answers come from."""
    desk = Desk()
    one, two = desk.admit(make_worker(0)), desk.admit(make_worker(1))
    desk.submit(*(make_request() for _ in range(6)))
    assert (len(desk.held_by(one)), len(desk.held_by(two))) == (3, 3)
    desk.answer(two)
    desk.submit(make_request(), make_request())
    assert (len(desk.held_by(one)), len(desk.held_by(two))) == (3, 2)


def test_tenants_share_the_turns_by_weight():
    """When both have much to hand out, a tenant of weight 3 has three requests out for each one of weight 1."""
    desk = Desk(TenantLimits(max_outstanding=1000, weight=3))
    other = TenantName("other")
    desk.add_tenant(other, TenantLimits(max_outstanding=1000))
    for tenant in (TENANT, other):
        desk.submit(*(make_request(tenant=tenant, payload_bytes=0) for _ in range(240)))
    for tenant in (TENANT, other):
        desk.dispatcher.admit_worker(make_worker(tenant=tenant), desk.now)
    desk.turn()
    assert first_leases(desk, 128).count(TENANT) == 96


def test_large_requests_cost_more_of_a_turn():
    """Of two tenants of one weight, one with requests of 2 MiB has one out for each 65 small ones of the other."""
    desk = Desk(TenantLimits(max_outstanding=1000))
    other = TenantName("other")
    desk.add_tenant(other, TenantLimits(max_outstanding=1000))
    for tenant, payload_bytes in ((TENANT, 2 * 1024 * 1024), (other, 0)):
        desk.submit(*(make_request(tenant=tenant, payload_bytes=payload_bytes) for _ in range(120)))
    for tenant in (TENANT, other):
        desk.dispatcher.admit_worker(make_worker(tenant=tenant), desk.now)
    desk.turn()
    assert first_leases(desk, 120).count(TENANT) == 2


def test_a_changed_weight_is_obeyed():
    """A tenant configured again with weight 3 has its turns accordingly."""
    desk = Desk(TenantLimits(max_outstanding=1000))
    other = TenantName("other")
    desk.add_tenant(other, TenantLimits(max_outstanding=1000))
    desk.dispatcher.configure_tenant(TENANT, TenantLimits(max_outstanding=1000, weight=3), desk.now)
    for tenant in (TENANT, other):
        desk.submit(*(make_request(tenant=tenant, payload_bytes=0) for _ in range(240)))
    for tenant in (TENANT, other):
        desk.dispatcher.admit_worker(make_worker(tenant=tenant), desk.now)
    desk.turn()
    assert first_leases(desk, 128).count(TENANT) == 96


@pytest.mark.parametrize("worker", [make_worker(generation=2), make_worker(replica=1), make_worker(generation=0)])
def test_an_answer_counts_only_from_the_life_that_holds_the_lease(worker):
    """Another generation or replica that names the lease is stale, known here or not; the request is untouched."""
    desk = Desk()
    holder = desk.admit()
    request = desk.submit_new()
    [dispatch] = desk.take(Dispatch)
    lease, _ = dispatch.requests[0]
    for is_known in (False, True):
        if is_known:
            desk.admit(worker)
        desk.dispatcher.complete(worker, [(lease, None, ())], desk.now)
        desk.turn()
    assert desk.dispatcher.tenant(TENANT).counters.stale == 2
    assert desk.delivered() == []
    desk.answer(holder)
    assert desk.delivered() == [request]


def test_a_second_answer_and_an_unknown_lease_are_stale():
    """A lease is answered once; what comes again, or was never given, is dropped and counted."""
    desk = Desk()
    worker = desk.admit()
    desk.submit_new()
    [dispatch] = desk.take(Dispatch)
    lease, request = dispatch.requests[0]
    results = [(lease, None, ()), (lease, None, ()), (LeaseId(1), None, ())]
    desk.dispatcher.complete(worker, results, desk.now)
    desk.turn()
    assert desk.delivered() == [request]
    assert desk.dispatcher.tenant(TENANT).counters.stale == 2


def test_events_about_strangers_change_nothing():
    """Workers and tenants that are not known here are no reason to fail."""
    desk = Desk()
    stranger = make_worker(tenant=TenantName("nobody"))
    desk.dispatcher.admit_worker(stranger, desk.now)
    desk.dispatcher.close_worker(stranger, desk.now)
    desk.dispatcher.revoke_worker(stranger, CRASHED, desk.now)
    desk.dispatcher.revoke_worker(make_worker(5), CRASHED, desk.now)
    desk.dispatcher.detach_worker(make_worker(5), desk.now)
    desk.dispatcher.complete(stranger, [(LeaseId(1), None, ())], desk.now)
    desk.dispatcher.set_gate(stranger.tenant, False, desk.now)
    desk.dispatcher.set_availability(stranger.tenant, False, "", None, desk.now)
    desk.dispatcher.forget_tenant(stranger.tenant, desk.now)
    desk.dispatcher.release_poison(stranger.tenant)
    assert desk.turn() == []


def test_a_closed_worker_gets_nothing_new_and_is_announced_when_empty():
    """It finishes what it holds; its last answer is followed by one announcement."""
    desk = Desk()
    worker = desk.admit()
    desk.submit(make_request(), make_request())
    desk.dispatcher.close_worker(worker, desk.now)
    waiting = desk.submit_new()
    first, second = desk.held_by(worker)
    desk.answer(worker, first)
    assert desk.take(AnnounceWorkerEmpty) == []
    desk.answer(worker, second)
    assert desk.take(AnnounceWorkerEmpty) == [AnnounceWorkerEmpty(worker)]
    assert desk.held_by(worker) == []
    assert not waiting.is_answered


def test_an_empty_or_unknown_worker_is_announced_at_once_and_again_when_told_again():
    """Whoever closes a worker always hears that it is empty, also when this router never saw it."""
    desk = Desk()
    worker, stranger = desk.admit(), make_worker(3)
    for closed in (worker, stranger, worker):
        desk.dispatcher.close_worker(closed, desk.now)
        desk.turn()
        assert desk.take(AnnounceWorkerEmpty) == [AnnounceWorkerEmpty(closed)]


def test_a_worker_that_attaches_after_it_was_closed_gets_nothing():
    """Closed stays closed, whichever message was faster."""
    desk = Desk()
    desk.dispatcher.close_worker(make_worker(), desk.now)
    worker = desk.admit()
    desk.submit_new()
    assert desk.held_by(worker) == []


def test_a_closed_worker_with_a_ghost_is_not_empty():
    """It still computes, though nobody waits: only the late answer makes it empty."""
    desk = Desk()
    worker = desk.admit()
    desk.submit_new(deadline=desk.now + 1.0)
    desk.dispatcher.close_worker(worker, desk.now)
    desk.wait(1.0)
    assert desk.take(AnnounceWorkerEmpty) == []
    desk.answer(worker)
    assert desk.take(AnnounceWorkerEmpty) == [AnnounceWorkerEmpty(worker)]


def test_a_detached_worker_gives_its_leases_back_without_suspicion():
    """They go to the front, in order, not counted as attempts, and not apart; old answers are stale."""
    desk = Desk(TenantLimits(max_outstanding=2))
    worker = desk.admit()
    requests = [make_request() for _ in range(3)]
    desk.submit(*requests)
    [dispatch] = desk.take(Dispatch)
    desk.dispatcher.detach_worker(worker, desk.now)
    desk.turn()
    assert desk.dispatcher.tenant(TENANT).queued == 3
    assert [request.attempts for request in requests] == [0, 0, 0]
    desk.dispatcher.complete(worker, [(dispatch.requests[0][0], None, ())], desk.now)
    assert desk.dispatcher.tenant(TENANT).counters.stale == 1
    desk.admit(worker)
    [again] = desk.take(Dispatch)
    assert [request for _, request in again.requests] == requests[:2]
    assert not again.must_run_alone
    assert desk.dispatcher.tenant(TENANT).counters.replayed == 0


def test_a_suspended_worker_keeps_what_it_holds_and_gets_nothing_new():
    """Until somebody says why its connection is gone: if it died, its requests are suspects; if not, it starts anew."""
    desk = Desk()
    worker = desk.admit()
    request = desk.submit_new()
    desk.dispatcher.suspend_worker(worker, desk.now)
    waiting = desk.submit_new()
    assert desk.dispatcher.tenant(TENANT).leased == 1
    assert desk.dispatcher.tenant(TENANT).queued == 1
    desk.dispatcher.revoke_worker(worker, CRASHED, desk.now)
    desk.turn()
    assert request.lone_deaths == 1
    assert request.is_suspect
    assert not waiting.is_suspect


def test_a_closed_worker_that_detaches_is_empty():
    """Its leases went elsewhere, so its emptiness is announced; admitted again it stays closed."""
    desk = Desk()
    worker = desk.admit()
    request = desk.submit_new()
    desk.dispatcher.close_worker(worker, desk.now)
    desk.dispatcher.detach_worker(worker, desk.now)
    desk.turn()
    assert desk.take(AnnounceWorkerEmpty) == [AnnounceWorkerEmpty(worker)]
    desk.admit(worker)
    assert desk.dispatcher.tenant(TENANT).queued == 1
    assert desk.held_by(desk.admit(make_worker(generation=2))) == [request]


def test_a_ghost_of_a_detached_worker_vanishes():
    """Nobody waits for it, so it is not queued again."""
    desk = Desk()
    worker = desk.admit()
    desk.submit_new(deadline=desk.now + 1.0)
    desk.wait(1.0)
    desk.dispatcher.detach_worker(worker, desk.now)
    desk.turn()
    assert desk.dispatcher.tenant(TENANT).queued == 0
    assert desk.dispatcher.tenant(TENANT).held_bytes == 0


def test_new_limits_hold_at_once():
    """A tenant configured again keeps its requests and obeys the new numbers."""
    desk = Desk(TenantLimits(max_outstanding=1))
    worker = desk.admit()
    desk.submit(make_request(), make_request(), make_request())
    desk.dispatcher.configure_tenant(TENANT, TenantLimits(max_outstanding=2, max_requests=3), desk.now)
    desk.turn()
    assert len(desk.held_by(worker)) == 2
    request = desk.submit_new()
    assert desk.refused() == {request: ErrorCode.OVERLOADED}


def test_workers_of_old_generations_are_forgotten_once_they_hold_nothing():
    """A successor's admission forgets former lives, so that restarts leave nothing behind."""
    desk = Desk()
    for generation in range(1, 20):
        worker = desk.admit(make_worker(generation=generation))
        desk.dispatcher.close_worker(worker, desk.now)
    assert list(desk.dispatcher.tenant(TENANT).holders) == [make_worker(generation=19)]


@pytest.mark.parametrize("slots", [1, 3])
def test_requests_for_a_busy_worker_travel_together(slots):
    """With a message for each slot and one more on the way, the next ones gather, until an answer or a moment later."""
    desk = Desk(TenantLimits(slots=slots))
    worker = desk.admit()
    for _ in range(slots + 1):
        desk.submit_new()
    first = desk.take(Dispatch)
    assert len(first) == slots + 1
    desk.submit_new()
    desk.submit_new()
    assert desk.take(Dispatch) == []
    assert desk.dispatcher.busy_until(TENANT) == desk.now + GATHER_S == desk.dispatcher.next_deadline()
    desk.dispatcher.complete(worker, [(first[0].requests[0][0], None, ())], desk.now)
    desk.turn()
    [answered] = desk.take(Dispatch)
    assert len(answered.requests) == 2
    desk.submit_new()
    assert desk.take(Dispatch) == []
    desk.now += GATHER_S
    desk.turn()
    assert [len(one.requests) for one in desk.take(Dispatch)] == [1]


def test_a_worker_without_work_is_never_kept_waiting():
    """However often it was given work, one that has answered all of it gets the next request at once."""
    desk = Desk()
    worker = desk.admit()
    for _ in range(10):
        desk.submit_new()
        [dispatch] = desk.take(Dispatch)
        desk.dispatcher.complete(worker, [(dispatch.requests[0][0], None, ())], desk.now)
        desk.turn()
    assert desk.dispatcher.busy_until(TENANT) < desk.now


def test_a_full_worker_does_not_hide_one_that_gathers():
    """Where one replica is full and another one gathers, what waits goes to that one as soon as it may."""
    desk = Desk(TenantLimits(max_outstanding=3))
    full = desk.admit(make_worker(0))
    desk.submit(*(make_request() for _ in range(3)))
    assert len(desk.held_by(full)) == 3
    other = desk.admit(make_worker(1))
    holder = desk.dispatcher.tenant(TENANT).holders[other]
    for _ in range(2):
        holder.note_sent(desk.now)
    desk.now += GATHER_S / 2
    waiting = desk.submit_new()
    assert waiting not in desk.held_by(other)
    assert desk.dispatcher.next_deadline() == holder.sent_at + GATHER_S
    desk.now += GATHER_S
    desk.turn()
    assert waiting in desk.held_by(other)
