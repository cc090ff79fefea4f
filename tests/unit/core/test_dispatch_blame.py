"""Whose input it was: fingerprints that are the sender's own, clients that are barred, deaths that nobody pays for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.desk import HUNG, REQUESTED, TENANT, Desk, make_request
from tests.support.suspects import POISON, die_with
from trtd.core.cuda_faults import sticky_fault
from trtd.core.dispatch import BlameClient, Refuse, Request, TenantLimits
from trtd.core.faults import Fault, FaultKind
from trtd.core.inflight import LONE_DEATHS_TO_CONVICT
from trtd.core.offenders import FIRST_BAR_S, FREE_DEATHS
from trtd.errors import ErrorCode

MALLORY, VICTIM = "uid:666", "uid:1000"
HEALTHY = b"healthy"


class SharedMemory:
    """Bytes that a client can change at any time; a request that names them has no other payload."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __bytes__(self) -> bytes:
        return self.content

    def request(self, owner: str = MALLORY, **changes: Any) -> Request:
        """A request of these bytes."""
        return make_request(owner=owner, payload=(self,), memory=(self,), **changes)


def convict(desk: Desk, request: Request, fault: Fault = HUNG) -> None:
    """Workers die of one request until it is convicted."""
    worker = desk.admit()
    desk.submit(request)
    for _ in range(LONE_DEATHS_TO_CONVICT):
        worker = desk.admit(desk.die(worker, fault))
    assert desk.refused() == {request: ErrorCode.POISONOUS}


def test_bytes_that_are_changed_while_the_worker_hangs_frame_nobody():
    """A hang whose sender puts another client's input in its place: the hang is remembered, the other one is served."""
    desk = Desk()
    memory = SharedMemory(b"hang")
    worker = die_with(desk, memory.request())
    memory.content = HEALTHY
    desk.die(worker, HUNG)
    assert list(desk.refused().values()) == [ErrorCode.POISONOUS]
    for owner in (VICTIM, MALLORY):
        healthy = desk.submit_new(owner=owner, payload=(HEALTHY,))
        assert not healthy.is_suspect
    hang = desk.submit_new(owner=MALLORY, payload=(b"hang",))
    assert desk.refused() == {hang: ErrorCode.POISONOUS}


def test_what_one_client_sent_is_held_against_no_other():
    """The very bytes that one client was convicted of are taken of another one, who has to be convicted by itself."""
    desk = Desk()
    convict(desk, make_request(owner=MALLORY, payload=POISON))
    theirs = desk.submit_new(owner=VICTIM, payload=POISON)
    assert not theirs.is_suspect
    assert desk.refused() == {}
    desk.submit_new(owner=MALLORY, payload=POISON)
    assert list(desk.refused().values()) == [ErrorCode.POISONOUS]


def test_the_bytes_of_a_ghost_are_not_convicted():
    """A client that was told of its deadline puts its next input in the same place: that one is watched, not blamed."""
    desk = Desk()
    worker = desk.admit()
    memory = SharedMemory(b"hang")
    desk.submit(memory.request(deadline=desk.now + 1.0))
    desk.wait(1.0)
    memory.content = HEALTHY
    worker = desk.admit(desk.die(worker, HUNG))
    desk.take(Refuse)
    retry = desk.submit(memory.request(received_at=desk.now))
    assert (retry.is_suspect, retry.lone_deaths) == (True, 0)
    desk.answer(worker)
    assert desk.delivered() == [retry]
    assert not desk.submit(memory.request(received_at=desk.now)).is_suspect


def test_a_hang_in_shared_memory_is_found_by_its_retries():
    """Though each try expires before its worker is killed, the retries are tried alone, and convicted."""
    desk = Desk()
    worker = desk.admit()
    memory = SharedMemory(b"hang")
    for _ in range(3):
        desk.submit(memory.request(received_at=desk.now, deadline=desk.now + 1.0))
        desk.wait(1.0)
        worker = desk.admit(desk.die(worker, HUNG))
    assert set(desk.refused().values()) == {ErrorCode.DEADLINE_EXCEEDED}
    again = desk.submit(memory.request(received_at=desk.now))
    assert desk.refused() == {again: ErrorCode.POISONOUS}


def test_a_fingerprint_is_taken_of_suspects_alone():
    """Normal requests are not fingerprinted; a suspect is, each time that a worker is given it."""
    desk = Desk()
    worker = desk.admit()
    normal = desk.submit_new()
    assert normal.digest == b""
    desk.answer(worker)
    memory = SharedMemory(b"one")
    suspect = memory.request()
    worker = die_with(desk, suspect)
    assert suspect.digest == b"one"
    memory.content = b"two"
    desk.admit(desk.die(worker, REQUESTED))
    assert suspect.digest == b"two"


def test_a_conviction_names_every_death_of_its_input():
    """The batch that died, the group and the lone deaths: all of them are the client's, and are told once."""
    desk = Desk()
    worker = desk.admit()
    requests = [make_request(owner=VICTIM, payload=(b"%d" % number,)) for number in range(16)]
    requests[0].payload, requests[0].owner = POISON, MALLORY
    desk.submit(*requests)
    lives = [worker]
    for _ in range(3):
        lives.append(desk.admit(desk.die(lives[-1])))
    lives.append(desk.die(lives[-1]))
    [blamed] = desk.take(BlameClient)
    assert (blamed.tenant, blamed.owner, blamed.model, blamed.barred_s) == (TENANT, MALLORY, "mlp", 0.0)
    assert set(blamed.deaths) == set(lives[:-1])
    assert desk.dispatcher.tenant(TENANT).counters.convicted == 1


def test_a_retry_brings_the_deaths_of_its_former_request_with_it():
    """Deaths are remembered with the input, so that its conviction names those of earlier requests too."""
    desk = Desk()
    worker = desk.admit()
    lives = []
    for _ in range(LONE_DEATHS_TO_CONVICT):
        desk.submit_new(payload=POISON, deadline=desk.now + 1.0)
        desk.wait(1.0)
        lives.append(worker)
        worker = desk.admit(desk.die(worker, HUNG))
    [blamed] = desk.take(BlameClient)
    assert set(blamed.deaths) == set(lives)


@pytest.mark.parametrize(
    "fault", [sticky_fault(214, "run"), Fault(FaultKind.BEAT_MISSED, "x"), Fault(FaultKind.KILLED, "x"), REQUESTED]
)
def test_nobody_is_blamed_for_what_no_input_does(fault):
    """Faults of devices, silence, kills and wishes name no client, however often they come."""
    desk = Desk(TenantLimits(max_attempts=50))
    worker = desk.admit()
    desk.submit_new()
    for _ in range(20):
        worker = desk.admit(desk.die(worker, fault))
    assert desk.take(BlameClient) == []
    assert desk.refused() == {}


def send_poison(desk: Desk, count: int, owner: str = MALLORY) -> None:
    """One poisonous input after the other, each another one, as long as they are taken."""
    worker = max(desk.dispatcher.tenant(TENANT).holders, default=None) or desk.admit()
    for number in range(count):
        request = desk.submit_new(owner=owner, payload=(b"%s %d" % (owner.encode(), number),))
        while desk.held_by(worker) == [request]:
            worker = desk.admit(desk.die(worker))


def test_whoever_sends_one_poison_after_the_other_is_barred():
    """Beyond a few deaths nothing more is taken of the client, with the time to wait; everybody else is served."""
    desk = Desk()
    send_poison(desk, 10)
    refusals = [(refuse.code, refuse.retry_after_s) for refuse in desk.take(Refuse)]
    assert [code for code, _ in refusals] == [ErrorCode.POISONOUS] * 2 + [ErrorCode.BARRED] * 8
    assert refusals[-1][1] == FIRST_BAR_S
    harmless = desk.submit_new(owner=MALLORY, payload=(b"harmless",))
    [refuse] = desk.take(Refuse)
    assert (refuse.request, refuse.code) == (harmless, ErrorCode.BARRED)
    assert MALLORY in refuse.message
    theirs = desk.submit_new(owner=VICTIM)
    assert desk.refused() == {}
    assert theirs.lease is not None
    desk.now += FIRST_BAR_S
    assert desk.submit_new(owner=MALLORY, payload=(b"harmless",)).lease is not None


def test_all_deaths_of_a_barred_client_are_excused():
    """The last death, of an input that is not convicted because its client is barred, is the client's too."""
    desk = Desk()
    send_poison(desk, 10)
    blamed = desk.take(BlameClient)
    assert len({life for one in blamed for life in one.deaths}) == FREE_DEATHS + 1
    assert blamed[-1].barred_s == FIRST_BAR_S


def test_what_waits_of_a_barred_client_ends_no_further_worker():
    """Requests that were accepted before the bar are refused when their turn comes, in the lane and in the queue."""
    desk = Desk(TenantLimits(max_outstanding=1))
    worker = desk.admit()
    waiting = [make_request(owner=MALLORY, payload=(b"%d" % number,)) for number in range(20)]
    theirs = make_request(owner=VICTIM)
    desk.submit(*waiting, theirs)
    deaths = 0
    while desk.held_by(worker) != [theirs]:
        deaths += 1
        worker = desk.admit(desk.die(worker))
    assert deaths == FREE_DEATHS + 1
    desk.answer(worker)
    assert desk.delivered() == [theirs]
    assert len(desk.refused()) == len(waiting)


def test_an_input_that_a_worker_survives_is_no_offence():
    """A model that crashes at random, and answers the same input the next time, bars nobody and excuses nothing."""
    desk = Desk()
    worker = desk.admit()
    for number in range(5 * FREE_DEATHS):
        desk.submit_new(payload=(b"%d" % number,))
        worker = desk.admit(desk.die(worker))
        desk.answer(worker)
    assert desk.take(BlameClient) == []
    assert desk.refused() == {}
    assert len(desk.delivered()) == 5 * FREE_DEATHS


def test_release_lifts_the_bar():
    """An operator who lets a tenant's inputs pass again lets its clients pass, too."""
    desk = Desk()
    send_poison(desk, 10)
    desk.take(Refuse)
    desk.dispatcher.release_poison(TENANT)
    desk.submit_new(owner=MALLORY)
    assert desk.refused() == {}
