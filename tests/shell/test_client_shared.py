"""Who leads and who follows, with a transport that hands out answers exactly when the test wants."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from tests.unit.client.test_exchange import ScriptedTransport, make_id
from trtd.client import Handle, Health, shared
from trtd.client.arenas import Arenas
from trtd.client.calls import Form
from trtd.client.pending import PendingRequest, new_request
from trtd.client.shared import SharedExchange
from trtd.client.transport import ConnectionEvent, Transport
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


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline


def test_an_answer_that_another_thread_reads_wakes_the_leader(transport, exchange):
    """A thread that sends and finds the leader's answer hands it over at once, though no descriptor tells."""
    with ThreadPoolExecutor(1) as pool:
        first = submit(exchange, 1)
        leading = pool.submit(first.result)
        while exchange._leader is None:
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
    while exchange._leader != exchange._background.ident:
        pass
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: (threading.get_ident(), handle.result())[0])
        while exchange._leader in {None, exchange._background.ident}:
            pass
        leader = exchange._leader
        transport.due = [1]
        submit(exchange, 2)
        assert waiting.result(WAIT_S) == leader
    assert handle.done()


def test_an_interrupted_follower_passes_the_offer_on(exchange):
    """A follower that is interrupted when the lead has just been offered to it offers it to the next one."""

    class InterruptedSeat:
        def acquire(self, timeout: float) -> bool:
            raise KeyboardInterrupt

    first, second = submit(exchange, 1), submit(exchange, 2)
    with ThreadPoolExecutor(1) as pool:
        exchange._leader = -1
        following = pool.submit(second.exception, 0.5)
        while not exchange._followers:
            pass
        seat = cast("threading.Lock", InterruptedSeat())
        first.seats += (seat,)
        with exchange._lock:
            exchange._leader = None
        with pytest.raises(KeyboardInterrupt):
            exchange._follow(seat, first, float("inf"))
        while exchange._leader is None and not following.done():
            pass
        assert exchange._leader is not None
        with pytest.raises(TimeoutError):
            following.result(WAIT_S)


def test_what_is_held_leaves_with_the_next(transport, exchange, monkeypatch):
    """While the background thread is patient a request is held, and leaves before the one that is submitted next."""
    monkeypatch.setattr(shared, "PATIENCE_S", 60.0)
    submit(exchange, 1, is_detached=True)
    wait_until(lambda: exchange._leader is None and not exchange._is_background_idle)
    exchange.hold(make_request(exchange, 2))
    assert transport.sent == [make_id(1)]
    submit(exchange, 3, is_detached=True)
    assert transport.sent == [make_id(1), make_id(2), make_id(3)]


def test_nothing_is_held_when_nobody_would_send_it(transport, exchange, monkeypatch):
    """While the background thread waits for answers, or for work, what is to be held leaves at once."""
    monkeypatch.setattr(shared, "PATIENCE_S", 0.001)
    first = submit(exchange, 1, is_detached=True)
    wait_until(lambda: exchange._leader is not None)
    exchange.hold(make_request(exchange, 2))
    assert transport.sent == [make_id(1), make_id(2)]
    exchange.abandon(first, Handle(exchange, make_id(2)))
    transport.due = [3]
    third = submit(exchange, 3, is_detached=True)
    assert third.result(WAIT_S).is_ready
    exchange._wake_leader()
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
