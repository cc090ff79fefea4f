"""The router's mind at the door and at the deadline: what is accepted, recognised, refused, expired."""

from __future__ import annotations

import pytest

from tests.support.desk import TENANT, Desk, groups, make_request, make_worker
from trtd.core.dispatch import Deliver, Dispatch, Dispatcher, Refuse, TenantLimits
from trtd.core.ids import LeaseId, TenantName
from trtd.core.tenancy import MAX_OUTCOMES, OTHER_MODEL
from trtd.errors import ErrorCode


def test_a_request_is_dispatched_and_answered():
    """The way of most requests: accepted, leased, delivered with the worker's frames, counted once."""
    desk = Desk()
    worker = desk.admit()
    request = desk.submit_new()
    [dispatch] = desk.take(Dispatch)
    assert dispatch.worker == worker
    assert [held for _, held in dispatch.requests] == [request]
    assert not dispatch.must_run_alone
    assert desk.dispatcher.tenant(TENANT).leased == 1
    desk.now += 0.25
    desk.answer(worker)
    assert desk.take(Deliver) == [Deliver(request, (b"answer",))]
    counters = desk.dispatcher.tenant(TENANT).counters
    assert (counters.accepted, counters.answered, counters.failed) == (1, 1, 0)
    tenant = desk.dispatcher.tenant(TENANT)
    assert tenant.outcomes == {("mlp", "ok"): 1}
    assert tenant.durations.sum_s == pytest.approx(0.25)
    assert tenant.queue_times.count == 1
    assert request.payload == ()


def test_a_typed_refusal_of_the_worker_is_an_answer():
    """An error that the worker wrote is delivered like a result, and counted by its code."""
    desk = Desk()
    worker = desk.admit()
    request = desk.submit_new()
    desk.answer(worker, code=ErrorCode.INVALID_INPUT)
    assert desk.delivered() == [request]
    assert desk.dispatcher.tenant(TENANT).outcomes == {("mlp", "invalid_input"): 1}


def test_answers_of_all_kinds_in_one_message_are_counted_apart():
    """Two models, an error, a stale lease and an answer to what had expired: each answer out once, each counted."""
    desk = Desk()
    worker = desk.admit()
    late = desk.submit(make_request(deadline=1001.0))
    desk.wait(2.0)
    requests = [make_request(received_at=desk.now, model=model) for model in ("a", "a", "b", "a", "a")]
    desk.submit(*requests)
    lease = desk.leases[worker]
    codes = (None, None, None, None, ErrorCode.MODEL_FAILED)
    results = [(lease[request], code, (b"f",)) for request, code in zip(requests, codes, strict=True)]
    results[2:2] = [(LeaseId(5), None, ()), (lease[late], None, (b"late",))]
    desk.dispatcher.complete(worker, results, desk.now)
    desk.turn()
    assert desk.delivered() == requests
    tenant = desk.dispatcher.tenant(TENANT)
    outcomes = {("a", "ok"): 3, ("b", "ok"): 1, ("a", "model_failed"): 1, ("mlp", "deadline_exceeded"): 1}
    assert tenant.outcomes == outcomes
    assert (tenant.counters.answered, tenant.counters.stale, tenant.held_bytes) == (5, 2, 0)
    assert not desk.dispatcher.owes_answers


def test_leases_count_up_from_the_first():
    """Every lease has the next number, beginning with the first one."""
    desk = Desk()
    desk.admit()
    desk.submit(*(make_request() for _ in range(3)))
    [dispatch] = desk.take(Dispatch)
    first = 7 << 32
    assert [lease for lease, _ in dispatch.requests] == [first, first + 1, first + 2]


def test_effects_are_handed_out_once_and_in_order():
    """`take_effects` empties the list."""
    desk = Desk()
    desk.admit()
    desk.submit_new()
    assert desk.dispatcher.take_effects() == []


def test_an_unknown_tenant_is_unavailable():
    """A request of a tenant that is not configured is refused, and nothing breaks."""
    desk = Desk()
    request = desk.submit(make_request(tenant=TenantName("nobody")))
    assert desk.refused() == {request: ErrorCode.UNAVAILABLE}


@pytest.mark.parametrize("is_leased", [False, True])
def test_a_resend_only_moves_the_route(is_leased):
    """The same id of the same owner: the answer goes to the new route, once, and nothing is accepted twice."""
    desk = Desk()
    worker = desk.admit()
    if not is_leased:
        desk.dispatcher.close_worker(worker, desk.now)
    request = desk.submit_new(route=b"old")
    desk.submit(make_request(id=request.id, route=b"new", is_resent=True))
    assert request.route == b"new"
    counters = desk.dispatcher.tenant(TENANT).counters
    assert (counters.accepted, counters.resent, counters.refused) == (1, 1, 0)
    if is_leased:
        desk.answer(worker)
        assert desk.delivered() == [request]


def test_an_id_in_use_by_another_owner_is_refused():
    """Nobody gets at another client's answer by guessing its id: the route stays, the second is malformed."""
    desk = Desk()
    request = desk.submit_new(owner=1)
    other = desk.submit(make_request(id=request.id, owner=2, route=b"thief"))
    assert desk.refused() == {other: ErrorCode.MALFORMED}
    assert request.route == b"route"


def test_an_id_is_free_again_after_its_answer():
    """An id that was answered is a new request when it comes again."""
    desk = Desk()
    worker = desk.admit()
    request = desk.submit_new()
    desk.answer(worker)
    desk.submit(make_request(id=request.id))
    assert desk.dispatcher.tenant(TENANT).counters.accepted == 2


def test_a_full_queue_refuses_and_has_room_again():
    """Bounds in requests count all that is not answered; an answer makes room."""
    desk = Desk(TenantLimits(max_requests=2))
    worker = desk.admit()
    desk.submit_new()
    desk.submit_new()
    third = desk.submit_new()
    assert desk.refused() == {third: ErrorCode.OVERLOADED}
    desk.answer(worker)
    desk.submit_new()
    assert desk.refused() == {}


def test_bytes_are_bounded_and_given_back():
    """Bounds in bytes count all that is held; each way out gives them back."""
    desk = Desk(TenantLimits(max_bytes=250))
    worker = desk.admit()
    desk.submit_new(deadline=desk.now + 1.0)
    desk.submit_new()
    assert desk.dispatcher.tenant(TENANT).held_bytes == 200
    third = desk.submit_new()
    assert desk.refused() == {third: ErrorCode.OVERLOADED}
    desk.answer(worker)
    assert desk.dispatcher.tenant(TENANT).held_bytes == 0


def test_overload_names_a_wait_once_the_pace_is_known():
    """With two answers in one second and two requests held, the hint is half a second."""
    desk = Desk(TenantLimits(max_requests=2))
    worker = desk.admit()
    for _ in range(2):
        desk.submit_new()
    desk.now += 1.0
    desk.answer(worker, *desk.held_by(worker)[:1])
    desk.submit_new()
    desk.submit_new()
    [refuse] = desk.take(Refuse)
    assert refuse.retry_after_s == pytest.approx(1.0)


def test_a_deadline_that_has_passed_is_refused_at_the_door():
    """A request that arrives too late is never accepted."""
    desk = Desk()
    request = desk.submit(make_request(deadline=desk.now))
    assert desk.refused() == {request: ErrorCode.DEADLINE_EXCEEDED}
    assert desk.dispatcher.tenant(TENANT).counters.accepted == 0


def test_reasons_are_judged_in_their_order():
    """Draining is told before unavailable, unavailable before overload, overload before a passed deadline."""
    desk = Desk(TenantLimits(max_requests=0))
    late = {"deadline": desk.now}
    desk.dispatcher.set_availability(TENANT, False, "no GPU", 3.0, desk.now)
    desk.submit(make_request(), make_request(**late))
    first, _ = desk.take(Refuse)
    assert (first.code, first.message, first.retry_after_s) == (ErrorCode.UNAVAILABLE, "no GPU", 3.0)
    desk.dispatcher.set_gate(TENANT, False, desk.now)
    request = desk.submit(make_request())
    assert desk.refused() == {request: ErrorCode.DRAINING}
    desk.dispatcher.set_gate(TENANT, True, desk.now)
    desk.dispatcher.set_availability(TENANT, True, "", None, desk.now)
    request = desk.submit(make_request(**late))
    assert desk.refused() == {request: ErrorCode.OVERLOADED}


def test_a_queued_request_is_answered_when_its_deadline_passes():
    """Without any worker the deadline is answered on time, and `next_deadline` says when."""
    desk = Desk()
    request = desk.submit_new(deadline=desk.now + 2.0)
    assert desk.dispatcher.next_deadline() == desk.now + 2.0
    desk.wait(1.99)
    assert desk.refused() == {}
    desk.wait(0.01)
    assert desk.refused() == {request: ErrorCode.DEADLINE_EXCEEDED}
    assert desk.dispatcher.next_deadline() is None
    counters = desk.dispatcher.tenant(TENANT).counters
    assert (counters.failed, counters.expired) == (1, 1)


def test_an_expired_request_never_reaches_a_worker():
    """A worker that comes after the deadline gets the others only."""
    desk = Desk()
    desk.submit_new(deadline=desk.now + 1.0)
    alive = desk.submit_new()
    desk.now += 1.0
    worker = desk.admit()
    assert desk.held_by(worker) == [alive]


def test_a_deadline_is_answered_while_the_worker_is_at_it():
    """The client hears on time; the late answer is stale and delivered to nobody; only then the room is free."""
    desk = Desk(TenantLimits(max_outstanding=1))
    worker = desk.admit()
    late = desk.submit_new(deadline=desk.now + 1.0)
    waiting = desk.submit_new()
    desk.wait(1.0)
    assert desk.refused() == {late: ErrorCode.DEADLINE_EXCEEDED}
    assert desk.dispatcher.tenant(TENANT).leased == 0
    assert desk.held_by(worker) == [late]
    assert desk.dispatcher.tenant(TENANT).held_bytes == 200
    desk.answer(worker, late)
    assert desk.delivered() == []
    assert desk.dispatcher.tenant(TENANT).counters.stale == 1
    assert desk.held_by(worker) == [waiting]
    assert desk.dispatcher.tenant(TENANT).held_bytes == 100


def test_priorities_leave_the_queue_first():
    """When the worker comes, higher priorities go first, and equal ones in the order of arrival."""
    desk = Desk()
    requests = [make_request(priority=priority) for priority in (0, 3, 0, 3)]
    desk.submit(*requests)
    desk.admit()
    [group] = groups(desk.take(Dispatch))
    assert group == [requests[1], requests[3], requests[0], requests[2]]


def test_unfinished_names_what_has_no_answer():
    """Ids of queued and leased requests, oldest first; answered and expired ones are not among them."""
    desk = Desk(TenantLimits(max_outstanding=2))
    worker = desk.admit()
    requests = [desk.submit_new() for _ in range(3)]
    ghost = desk.submit_new(deadline=desk.now + 1.0)
    desk.answer(worker, requests[0])
    desk.wait(1.0)
    assert desk.dispatcher.unfinished(TENANT) == [requests[1].id, requests[2].id]
    assert ghost.is_answered


def test_models_that_clients_invent_are_counted_together():
    """A client that asks for ever new models cannot fill the counters."""
    desk = Desk(TenantLimits(max_requests=10_000, max_outstanding=10_000))
    worker = desk.admit()
    desk.submit(*(make_request(model=f"m{number}") for number in range(MAX_OUTCOMES + 50)))
    desk.answer(worker, code=ErrorCode.UNKNOWN_MODEL)
    outcomes = desk.dispatcher.tenant(TENANT).outcomes
    assert len(outcomes) == MAX_OUTCOMES + 1
    assert outcomes[OTHER_MODEL, "unknown_model"] == 50


def test_check_finds_an_account_that_does_not_add_up():
    """The check is not blind: a request that vanishes, or a wrong counter, is named."""
    desk = Desk()
    request = desk.submit_new()
    desk.dispatcher.tenant(TENANT).queue.remove(request)
    with pytest.raises(AssertionError, match="accepted request"):
        desk.dispatcher.check()
    desk.dispatcher.tenant(TENANT).queue.push(request)
    desk.dispatcher.check()
    desk.dispatcher.tenant(TENANT).counters.accepted += 1
    with pytest.raises(AssertionError, match="accepted = answered"):
        desk.dispatcher.check()


def test_digests_are_not_computed_without_suspicion():
    """The fingerprint of a payload, which costs time, is asked for only when an input is suspected."""

    def digest(request: object) -> bytes:
        raise AssertionError("nobody is suspected")

    dispatcher = Dispatcher(digest, 0)
    dispatcher.configure_tenant(TENANT, TenantLimits(), 0.0)
    dispatcher.admit_worker(make_worker(), 0.0)
    dispatcher.submit(make_request(), 0.0)
    dispatcher.advance(0.0)
    [dispatch] = dispatcher.take_effects()
    assert isinstance(dispatch, Dispatch)
    dispatcher.complete(make_worker(), [(dispatch.requests[0][0], None, ())], 0.0)
    assert dispatcher.tenant(TENANT).counters.answered == 1
