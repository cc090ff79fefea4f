"""Who leads and who follows, with a transport that hands out answers exactly when the test wants."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import pytest

from tests.unit.client.test_exchange import ScriptedTransport, make_id
from trtd.client import Handle, Health, lead, shared
from trtd.client.arenas import Arenas
from trtd.client.calls import Form
from trtd.client.lead import Seat
from trtd.client.pending import PendingRequest, new_request
from trtd.client.shared import SharedExchange
from trtd.client.transport import ConnectionEvent, Transport
from trtd.errors import Unreachable
from trtd.wire.messages import UNKNOWN_REQUEST_ID, HealthRequest

WAIT_S = 10.0


class SilentTransport(ScriptedTransport):
    """Its descriptors never become readable by themselves; answers come with the next send after `answer_next`."""

    def __init__(self) -> None:
        super().__init__(ConnectionEvent.CONNECTED)
        self.fd, self.monitor_fd = os.eventfd(0), os.eventfd(0)
        self.due: list[int] = []

    def send(self, header: bytes, tensors: Sequence[Any]) -> bool:
        is_sent = super().send(header, tensors)
        for number in self.due:
            self.answer(number)
        self.due.clear()
        return is_sent

    def receive(self) -> list[Any] | None:
        return super().receive()

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.monitor_fd)


@pytest.fixture
def transport() -> SilentTransport:
    return SilentTransport()


@pytest.fixture
def exchange(transport: SilentTransport) -> Iterator[SharedExchange]:
    exchange = SharedExchange(cast("Transport", transport), Arenas(None))
    yield exchange
    exchange.close()


def make_request(exchange: SharedExchange, number: int) -> PendingRequest:
    handle: Handle[Health] = Handle(exchange, make_id(number))
    return new_request(handle, Form(HealthRequest(UNKNOWN_REQUEST_ID)), (), 60.0, time.monotonic())


def submit(exchange: SharedExchange, number: int, *, is_detached: bool = False) -> Handle[Health]:
    request = make_request(exchange, number)
    exchange.submit(request, is_detached=is_detached)
    return cast("Handle[Health]", request.handle)


@contextlib.contextmanager
def following(exchange: SharedExchange, handle: Handle[Health]) -> Iterator[tuple[int, Future[bool]]]:
    """A thread that waits for the handle while this one leads, until the handle is abandoned and its time is up."""
    with exchange._lead.lock:
        exchange._lead.take(None)
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.get_ident).result(WAIT_S)
        waiting = pool.submit(exchange.wait_for, handle, 0.5)
        wait_until(lambda: len(exchange._lead.followers) == 1)
        yield thread, waiting
        assert not waiting.result(WAIT_S)
    exchange.abandon(handle)


def sit_down_and_be_offered(exchange: SharedExchange, handle: Handle[Health]) -> Seat:
    """This thread leads, gives the lead up, and gets it back as a follower."""
    with exchange._lead.lock:
        seat = exchange._lead.sit_down(handle)
        assert exchange._lead.give_up()
    assert seat.is_offered
    return seat


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline


def test_an_answer_that_another_thread_reads_wakes_the_leader(transport, exchange):
    """A thread that sends and finds the leader's answer hands it over at once, though no descriptor tells."""
    with ThreadPoolExecutor(1) as pool:
        first = submit(exchange, 1)
        leading = pool.submit(first.result)
        while exchange._lead.thread is None:
            pass
        transport.due = [1]
        submit(exchange, 2)
        assert leading.result(WAIT_S).is_ready
    exchange.abandon(Handle(exchange, make_id(2)))


def test_a_callback_needs_no_patience(transport, exchange, monkeypatch):
    """With a callback registered the background thread reads at once, whatever its patience is otherwise."""
    monkeypatch.setattr(shared, "PATIENCE_S", 60.0)
    called = threading.Event()
    handle = submit(exchange, 1, is_detached=True)
    transport.answer(1)
    handle.add_done_callback(lambda _: called.set())
    assert called.wait(WAIT_S)


def test_a_waiting_thread_is_left_the_lead(transport, exchange, monkeypatch):
    """The background thread leaves a thread that waits for its own result the lead, and takes it when nobody waits."""
    monkeypatch.setattr(shared, "PATIENCE_S", 0.01)
    handle = submit(exchange, 1, is_detached=True)
    assert exchange._background is not None
    while exchange._lead.thread != exchange._background.ident:
        pass
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: (threading.get_ident(), handle.result())[0])
        while exchange._lead.thread in {None, exchange._background.ident}:
            pass
        leader = exchange._lead.thread
        transport.due = [1]
        submit(exchange, 2)
        assert waiting.result(WAIT_S) == leader
    assert handle.done()


def test_an_interrupted_follower_passes_the_lead_on(exchange, monkeypatch):
    """A follower that is interrupted when it has just been given the lead gives it to the next one."""

    class InterruptedSeat(Seat):
        def wait(self, until: float) -> None:
            raise KeyboardInterrupt

    first, second = submit(exchange, 1), submit(exchange, 2)
    with following(exchange, second) as (thread, _):
        monkeypatch.setattr(lead, "Seat", InterruptedSeat)
        seat = sit_down_and_be_offered(exchange, first)
        with pytest.raises(KeyboardInterrupt):
            exchange._follow(seat, math.inf)
        assert exchange._lead.thread == thread
    exchange.abandon(first)


def test_a_follower_that_has_its_answer_passes_the_lead_on(exchange):
    """A follower that is given the lead when its answer has just come gives it to the next one and goes on."""
    first, second = submit(exchange, 1), submit(exchange, 2)
    with following(exchange, second) as (thread, _):
        seat = sit_down_and_be_offered(exchange, first)
        first.outcome = Health(True, "ready", "", "1")
        assert exchange._follow(seat, math.inf)
        exchange._serve(first, math.inf)
        assert exchange._lead.thread == thread
    exchange.abandon(first)


def test_a_follower_that_waits_in_vain_is_given_nothing(exchange):
    """Once its time is up a follower is not offered the lead any more, and its handle remembers no seat."""
    first = submit(exchange, 1)
    with exchange._lead.lock:
        exchange._lead.take(None)
    with pytest.raises(TimeoutError):
        first.result(0.01)
    assert not exchange._lead.followers
    assert not first.seats
    with exchange._lead.lock:
        assert not exchange._lead.give_up()


def test_nobody_waits_for_a_busy_connection(transport, exchange):
    """A request that comes while another thread sends is left to that thread, which sends it afterwards."""
    is_sending, may_go_on = threading.Event(), threading.Event()
    send = transport.send

    def send_slowly(header: bytes, tensors: Sequence[Any]) -> bool:
        is_sending.set()
        assert may_go_on.wait(WAIT_S)
        return send(header, tensors)

    transport.send = send_slowly
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(submit, exchange, 1)
        assert is_sending.wait(WAIT_S)
        second = submit(exchange, 2)
        assert not transport.sent
        may_go_on.set()
        first = sending.result(WAIT_S)
    assert transport.sent == [make_id(1), make_id(2)]
    exchange.abandon(first, second)


def test_what_comes_while_a_call_is_given_up_is_sent(transport, exchange, monkeypatch):
    """A request that is left to a thread that only gives its own up is sent by it, and waits for no other thread."""
    monkeypatch.setattr(shared, "PATIENCE_S", 60.0)
    first, second = submit(exchange, 1, is_detached=True), make_request(exchange, 2)
    with monkeypatch.context() as patch:
        patch.setattr(exchange._exchange, "abandon", lambda _: exchange.submit(second, is_detached=True))
        exchange.abandon(first)
    assert transport.sent == [make_id(1), make_id(2)]
    exchange.abandon(first, second.handle)


def test_what_comes_while_the_leader_falls_asleep_is_sent(transport, exchange):
    """A request that comes after the leader has looked for some, and before it sleeps, does not wait until it wakes."""
    first = submit(exchange, 1)
    next_deadline = exchange._exchange.next_deadline

    def submit_another() -> float | None:
        exchange._exchange.next_deadline = next_deadline
        submit(exchange, 2)
        return next_deadline()

    exchange._exchange.next_deadline = submit_another
    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(first.exception, WAIT_S)
        wait_until(lambda: len(transport.sent) == 2)
        transport.due = [1]
        submit(exchange, 3)
        assert leading.result(WAIT_S) is None
    exchange.abandon(*(Handle(exchange, make_id(number)) for number in (2, 3)))


def test_what_is_left_to_a_thread_that_fails_is_sent_by_the_leader(transport, exchange):
    """A thread that is interrupted while it sends wakes the leader, which sends what others left to that thread."""
    first = submit(exchange, 1)
    send = transport.send

    def interrupt(header: bytes, tensors: Sequence[Any]) -> bool:
        transport.send = send
        exchange._inbox.append(make_request(exchange, 3))
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(first.result)
        wait_until(lambda: exchange._lead.is_asleep)
        transport.send = interrupt
        with pytest.raises(KeyboardInterrupt):
            submit(exchange, 2)
        wait_until(lambda: len(transport.sent) == 3)
        transport.due = [1]
        submit(exchange, 4)
        assert leading.result(WAIT_S).is_ready
    exchange.abandon(*(Handle(exchange, make_id(number)) for number in (2, 3, 4)))


def test_a_request_does_not_wait_for_a_leader_to_wake_up(transport, exchange):
    """A thread that nobody is due to follow sends its request itself, even when the lead has just changed hands."""
    with exchange._lead.lock:
        exchange._lead.take(None)
    first = submit(exchange, 1)
    assert transport.sent == [make_id(1)]
    exchange.abandon(first)
    with exchange._lead.lock:
        exchange._stop_leading()


def test_the_leader_sends_for_those_that_come_back_together(transport, exchange):
    """Threads that were released together leave their next requests to the leader, which sends them at one go."""
    senders: list[int] = []
    send = transport.send
    first = submit(exchange, 1)

    def send_and_tell(header: bytes, tensors: Sequence[Any]) -> bool:
        senders.append(threading.get_ident())
        return send(header, tensors)

    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(first.result)
        wait_until(lambda: exchange._lead.is_asleep)
        leader = exchange._lead.thread
        transport.send = send_and_tell
        exchange._lead.due_back = 3
        with exchange._lock:
            requests = [submit(exchange, number) for number in (2, 3, 4)]
        wait_until(lambda: len(transport.sent) == 4)
        assert set(senders) == {leader}
        transport.due = [1]
        exchange._lead.due_back = 0
        requests.append(submit(exchange, 5))
        assert leading.result(WAIT_S).is_ready
    assert senders[-1] == threading.get_ident()
    exchange.abandon(*requests)


def test_what_comes_while_the_client_closes_ends(transport, exchange):
    """A request that reaches the inbox of a client that was closed meanwhile ends as unreachable, and calls back."""
    called: list[Handle[Health]] = []
    request = make_request(exchange, 1)
    exchange.call_when_done(request.handle, called.append)
    exchange.close()
    exchange._inbox.append(request)
    exchange.flush(time.monotonic(), is_detached=False)
    assert isinstance(request.handle.outcome, Unreachable)
    assert called == [request.handle]


def test_what_comes_while_the_client_lets_go_ends(transport, exchange, monkeypatch):
    """A request that is left to the thread that closes the client, when it is all but done, is ended by that thread."""
    request = make_request(exchange, 1)
    close = exchange._lead.close

    def submit_and_close() -> None:
        exchange._inbox.append(request)
        exchange.flush(time.monotonic(), is_detached=False)
        close()

    monkeypatch.setattr(exchange._lead, "close", submit_and_close)
    exchange.close()
    assert isinstance(request.handle.outcome, Unreachable)


def test_what_is_held_leaves_with_the_next(transport, exchange, monkeypatch):
    """While the background thread is patient a request is held, and leaves before the one that is submitted next."""
    monkeypatch.setattr(shared, "PATIENCE_S", 60.0)
    submit(exchange, 1, is_detached=True)
    wait_until(lambda: exchange._lead.thread is None and not exchange._is_background_idle)
    exchange.hold(make_request(exchange, 2))
    assert transport.sent == [make_id(1)]
    submit(exchange, 3, is_detached=True)
    assert transport.sent == [make_id(1), make_id(2), make_id(3)]


def test_nothing_is_held_when_nobody_would_send_it(transport, exchange, monkeypatch):
    """While the background thread waits for answers, or for work, what is to be held leaves at once."""
    monkeypatch.setattr(shared, "PATIENCE_S", 0.001)
    first = submit(exchange, 1, is_detached=True)
    wait_until(lambda: exchange._lead.thread is not None)
    exchange.hold(make_request(exchange, 2))
    assert transport.sent == [make_id(1), make_id(2)]
    exchange.abandon(first, Handle(exchange, make_id(2)))
    transport.due = [3]
    third = submit(exchange, 3, is_detached=True)
    assert third.result(WAIT_S).is_ready
    exchange._lead.wake()
    wait_until(lambda: exchange._is_background_idle)
    exchange.hold(make_request(exchange, 4))
    assert transport.sent[-1] == make_id(4)


def test_what_is_held_is_sent_though_all_else_has_ended(transport, exchange, monkeypatch):
    """The background thread sends what is held within its patience, also when no other request is left."""
    monkeypatch.setattr(shared, "PATIENCE_S", 0.05)
    first = submit(exchange, 1, is_detached=True)
    exchange.hold(make_request(exchange, 2))
    exchange.abandon(first)
    wait_until(lambda: transport.sent == [make_id(1), make_id(2)])
