"""Gates, availability, removal, and a router that was restarted: nothing accepted goes without its answer."""

from __future__ import annotations

import pytest

from tests.support.desk import CRASHED, TENANT, Desk, make_request
from trtd.core.dispatch import AnnounceTenantEmpty, Deliver, Refuse, TenantLimits
from trtd.core.ids import TenantName
from trtd.core.tenancy import Gate
from trtd.errors import ErrorCode

EMPTY = [AnnounceTenantEmpty(TENANT)]


def close_gate(desk: Desk) -> None:
    """The supervisor drains TENANT."""
    desk.dispatcher.set_gate(TENANT, False, desk.now)
    desk.turn()


def test_a_closed_gate_refuses_new_requests_and_finishes_the_accepted_ones():
    """Queued and leased requests are answered, new ones refused; emptiness is announced once, after the last answer."""
    desk = Desk(TenantLimits(max_outstanding=1))
    worker = desk.admit()
    first, second = make_request(), make_request()
    desk.submit(first, second)
    close_gate(desk)
    late = desk.submit_new()
    assert desk.refused() == {late: ErrorCode.DRAINING}
    desk.answer(worker)
    assert desk.take(AnnounceTenantEmpty) == []
    effects = desk.answer(worker)
    assert effects == [Deliver(second, (b"answer",)), *EMPTY]
    assert desk.take(AnnounceTenantEmpty) == EMPTY
    desk.wait(100.0)
    assert desk.take(AnnounceTenantEmpty) == []


def test_an_empty_tenant_is_announced_at_once_and_again_when_told_again():
    """Each time the gate is closed, emptiness is announced for that time."""
    desk = Desk()
    close_gate(desk)
    close_gate(desk)
    assert desk.take(AnnounceTenantEmpty) == EMPTY * 2


def test_a_reopened_gate_takes_requests_and_announces_nothing():
    """Opening the gate ends the drain."""
    desk = Desk()
    worker = desk.admit()
    desk.submit_new()
    close_gate(desk)
    desk.dispatcher.set_gate(TENANT, True, desk.now)
    request = desk.submit_new()
    desk.answer(worker)
    assert desk.take(AnnounceTenantEmpty) == []
    assert request in desk.delivered()


def test_a_deadline_or_a_failure_can_be_the_last_answer():
    """Emptiness follows whatever answered the last request."""
    desk = Desk()
    desk.submit_new(deadline=desk.now + 1.0)
    close_gate(desk)
    effects = desk.wait(1.0)
    assert [type(effect) for effect in effects] == [Refuse, AnnounceTenantEmpty]


def test_a_ghost_does_not_hold_up_a_drain():
    """Its client has been answered: the tenant owes nothing, though the worker is still at it."""
    desk = Desk()
    desk.admit()
    desk.submit_new(deadline=desk.now + 1.0)
    close_gate(desk)
    desk.wait(1.0)
    assert desk.take(AnnounceTenantEmpty) == EMPTY


def test_workers_that_die_in_a_drain_are_replaced_and_the_requests_answered():
    """Replay works under a closed gate."""
    desk = Desk()
    worker = desk.admit()
    request = desk.submit_new()
    close_gate(desk)
    worker = desk.admit(desk.die(worker))
    desk.answer(worker)
    assert desk.delivered() == [request]
    assert desk.take(AnnounceTenantEmpty) == EMPTY


def test_a_known_id_is_recognised_under_a_closed_gate():
    """A client that reconnects during a drain gets its answer on the new route, not a refusal."""
    desk = Desk()
    worker = desk.admit()
    request = desk.submit_new()
    close_gate(desk)
    desk.submit(make_request(id=request.id, route=b"new"))
    assert desk.refused() == {}
    assert request.route == b"new"
    desk.answer(worker)
    assert desk.delivered() == [request]


def test_unavailability_fails_what_waits_and_spares_what_workers_hold():
    """Queued requests and suspects get UNAVAILABLE with reason and hint; the leased one may still be answered."""
    desk = Desk(TenantLimits(max_outstanding=1))
    worker = desk.admit()
    leased, queued = make_request(), make_request()
    desk.submit(leased, queued)
    desk.dispatcher.set_availability(TENANT, False, "quarantined after 10 deaths", 60.0, desk.now)
    desk.turn()
    assert desk.take(Refuse) == [Refuse(queued, ErrorCode.UNAVAILABLE, "quarantined after 10 deaths", 60.0)]
    desk.answer(worker)
    assert desk.delivered() == [leased]


@pytest.mark.parametrize("is_dead", [True, False])
def test_what_a_worker_held_fails_when_it_is_lost_while_unavailable(is_dead):
    """Revoked or detached while no successor is expected: its requests do not wait for their deadline."""
    desk = Desk()
    worker = desk.admit()
    request = desk.submit_new()
    desk.dispatcher.set_availability(TENANT, False, "quarantined", None, desk.now)
    if is_dead:
        desk.dispatcher.revoke_worker(worker, CRASHED, desk.now)
    else:
        desk.dispatcher.detach_worker(worker, desk.now)
    desk.turn()
    assert desk.refused() == {request: ErrorCode.UNAVAILABLE}


def test_available_again_takes_requests_again():
    """The refusal ends with the reason for it."""
    desk = Desk()
    desk.dispatcher.set_availability(TENANT, False, "quarantined", None, desk.now)
    desk.dispatcher.set_availability(TENANT, True, "", None, desk.now)
    request = desk.submit_new()
    assert desk.held_by(desk.admit()) == [request]


@pytest.mark.parametrize(("is_open", "code"), [(True, ErrorCode.UNAVAILABLE), (False, ErrorCode.DRAINING)])
def test_a_forgotten_tenant_fails_everything(is_open, code):
    """Queued, suspect and leased requests are answered; later answers and requests find nobody; it can come back."""
    desk = Desk(TenantLimits(max_outstanding=2))
    worker = desk.admit()
    requests = [make_request() for _ in range(3)]
    desk.submit(*requests)
    worker = desk.admit(desk.die(worker))
    desk.dispatcher.set_gate(TENANT, is_open, desk.now)
    desk.dispatcher.forget_tenant(TENANT, desk.now)
    desk.turn()
    assert desk.refused() == dict.fromkeys(requests, code)
    assert desk.take(AnnounceTenantEmpty) == []
    assert all(request.payload == () for request in requests)
    desk.answer(worker)
    assert desk.delivered() == []
    assert desk.dispatcher.next_deadline() in (None, desk.now + 2.0)
    desk.wait(60.0)
    desk.add_tenant(TENANT)
    request = desk.submit_new()
    assert desk.held_by(desk.admit()) == [request]


def test_an_untold_tenant_queues_what_comes():
    """Just after a router's restart nobody is refused: requests wait, within the bounds, until more is told."""
    desk = Desk(TenantLimits(max_requests=2), is_told=False)
    assert desk.dispatcher.tenant(TENANT).gate is Gate.UNTOLD
    requests = [desk.submit_new(), desk.submit_new(is_resent=True)]
    third = desk.submit_new()
    assert desk.refused() == {third: ErrorCode.OVERLOADED}
    desk.dispatcher.set_gate(TENANT, True, desk.now)
    assert desk.held_by(desk.admit()) == requests


def test_what_came_before_the_word_of_a_drain_is_still_answered():
    """A request accepted while nothing was told is accepted, whatever is told then."""
    desk = Desk(is_told=False)
    request = desk.submit_new(is_resent=True)
    close_gate(desk)
    assert desk.take(AnnounceTenantEmpty) == []
    desk.answer(desk.admit())
    assert desk.delivered() == [request]
    assert desk.take(AnnounceTenantEmpty) == EMPTY


@pytest.mark.parametrize("grace_s", [0.0, 1.0])
def test_who_says_that_it_sent_a_request_before_does_not_pass_a_closed_gate(grace_s):
    """A flood that calls itself resent is refused as any other one, by the first router and by a later one in time."""
    desk = Desk(is_told=False, resend_grace_s=grace_s)
    worker = desk.admit()
    held = desk.submit_new()
    close_gate(desk)
    desk.wait(grace_s)
    flood = [desk.submit_new(is_resent=True) for _ in range(50)]
    assert desk.refused() == dict.fromkeys(flood, ErrorCode.DRAINING)
    desk.answer(worker)
    assert desk.delivered() == [held]
    assert desk.take(AnnounceTenantEmpty) == EMPTY


def test_a_resent_request_that_is_known_passes_a_closed_gate():
    """Who comes back over another connection for what this router holds gets its answer there."""
    desk = Desk()
    worker = desk.admit()
    held = desk.submit_new()
    close_gate(desk)
    desk.submit(make_request(id=held.id, route=b"new", is_resent=True))
    assert desk.refused() == {}
    desk.answer(worker)
    assert desk.delivered() == [held]
    assert held.route == b"new"


def test_a_restarted_router_gives_clients_time_to_come_back_before_it_is_empty():
    """Within the grace an empty tenant is not announced, resends are served, and its end is watched."""
    desk = Desk(is_told=False, resend_grace_s=1.0)
    worker = desk.admit()
    close_gate(desk)
    assert desk.take(AnnounceTenantEmpty) == []
    assert desk.dispatcher.next_deadline() == desk.now + 1.0
    desk.now += 0.5
    resent = desk.submit_new(is_resent=True)
    desk.answer(worker)
    assert desk.delivered() == [resent]
    assert desk.take(AnnounceTenantEmpty) == []
    desk.wait(0.5)
    assert desk.take(AnnounceTenantEmpty) == EMPTY


def test_the_grace_ends_in_its_own_time():
    """Another instant set for the tenant, such as the lane's patience, does not end the grace."""
    desk = Desk(is_told=False, resend_grace_s=10.0)
    worker = desk.admit()
    desk.submit_new(deadline=desk.now + 1.0)
    close_gate(desk)
    desk.die(worker)
    desk.wait(5.0)
    assert desk.take(AnnounceTenantEmpty) == []
    desk.wait(5.0)
    assert desk.take(AnnounceTenantEmpty) == EMPTY


def test_tenants_drain_apart():
    """Closing one gate leaves the other tenant's requests and announcements alone."""
    desk = Desk()
    other = TenantName("other")
    desk.add_tenant(other)
    request = desk.submit_new(tenant=other)
    close_gate(desk)
    assert desk.take(AnnounceTenantEmpty) == EMPTY
    assert not request.is_answered
