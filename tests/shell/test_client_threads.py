"""Many threads that share one client and do all that they may, all at once: nothing is lost, nothing comes twice."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.client_router import WAIT_S, Received, StandInRouter
from trtd.client import Client, lead
from trtd.client.shared import SharedExchange
from trtd.errors import ErrorCode, Overloaded, Unreachable, Usage

THREADS = 8
CALLS = 60
REFUSED_EVERY = 7
INTERRUPTED_EVERY = 5


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A client of a router that refuses some requests and answers all others."""
    address = f"ipc://{tmp_path}/a.sock"
    with StandInRouter(address) as router:
        router.take_arenas(has_bundles=True)

        def answer(received: Received) -> None:
            if np.frombuffer(received.tensors[0], np.float32)[0] % REFUSED_EVERY == 0:
                router.refuse(received, ErrorCode.OVERLOADED, "full")
            else:
                router.answer(received)

        router.serve(answer)
        with Client(address, timeout=WAIT_S) as client:
            yield client


@pytest.fixture(autouse=True)
def threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def x(value: float) -> dict[str, Any]:
    return {"x": np.full(4, value, np.float32)}


class Caller:
    """One of the threads.

    Attributes:
        ends: how many of its calls ended how.
    """

    def __init__(self, client: Client, number: int) -> None:
        self.ends: Counter[str] = Counter()
        self._client = client
        self._values = count(number * 1000 + 1)
        self._ways = (self._infer, self._submit, self._be_impatient, self._call_back, self._break_off)

    def __call__(self, calls: int = CALLS) -> Counter[str]:
        """So many calls, in all ways in turn."""
        for number in range(calls):
            try:
                self._ways[number % len(self._ways)](next(self._values))
            except KeyboardInterrupt:
                self.ends["interrupted"] += 1
            except (Unreachable, Usage) as error:
                self.ends[type(error).__name__] += 1
        return self.ends

    def _check(self, value: float, outcome: Any) -> None:
        if isinstance(outcome, Unreachable):
            raise outcome
        if value % REFUSED_EVERY == 0:
            assert isinstance(outcome, Overloaded)
            self.ends["refused"] += 1
        else:
            assert outcome["x"][0] == value
            self.ends["answered"] += 1

    def _infer(self, value: float) -> None:
        try:
            outcome: Any = self._client.infer("m", x(value))
        except Overloaded as error:
            outcome = error
        self._check(value, outcome)

    def _submit(self, value: float) -> None:
        handle = self._client.submit("m", x(value))
        self._check(value, handle.exception() or handle.result())

    def _be_impatient(self, value: float) -> None:
        handle = self._client.submit("m", x(value))
        while not handle.done():
            try:
                handle.exception(0.0001)
            except TimeoutError:
                self.ends["impatient"] += 1
        self._check(value, handle.exception() or handle.result())

    def _call_back(self, value: float) -> None:
        called = threading.Event()
        handle = self._client.submit("m", x(value))
        handle.add_done_callback(lambda _: called.set())
        if not called.wait(WAIT_S):
            raise AssertionError("a callback was lost")
        self._check(value, handle.exception() or handle.result())

    def _break_off(self, value: float) -> None:
        inputs = map(x, [value, value, value])
        answers = self._client.infer_many("m", inputs, window=2, return_errors=True)
        for outcome in islice(answers, 2):
            self._check(value, outcome)
        answers.close()


def test_everything_at_once(client, monkeypatch):
    """Threads wait, time out, call back, give up and are interrupted, and every call ends in the one way it should."""
    interrupt_some_waits(monkeypatch)
    ends: Counter[str] = Counter()
    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(Caller(client, number)) for number in range(THREADS)]:
            ends += future.result(WAIT_S)
    assert ends["interrupted"] > 0
    assert not ends.keys() - {"answered", "refused", "impatient", "interrupted"}
    deadline = time.monotonic() + WAIT_S
    while not is_at_rest(client):
        assert time.monotonic() < deadline


def test_everything_at_once_until_one_closes(client, monkeypatch):
    """The same when a thread closes the client in the middle: whatever was under way ends as unreachable."""
    interrupt_some_waits(monkeypatch)
    ends: Counter[str] = Counter()
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(Caller(client, number), 10 * CALLS) for number in range(THREADS)]
        Caller(client, THREADS)()
        client.close()
        for future in futures:
            ends += future.result(WAIT_S)
    assert ends["Usage"] > 0
    assert not ends.keys() - {"answered", "refused", "impatient", "interrupted", "Unreachable", "Usage"}
    assert is_at_rest(client)


def interrupt_some_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as it comes to a thread that waits, followers and leaders alike, but for the background thread."""
    numbers = count(1)

    def interrupt() -> None:
        is_caller = threading.current_thread().name != "trtd-client"
        if is_caller and next(numbers) % INTERRUPTED_EVERY == 0:
            raise KeyboardInterrupt

    class InterruptedSeat(lead.Seat):
        def wait(self, until: float) -> None:
            super().wait(until)
            interrupt()

    wait = SharedExchange._wait

    def wait_and_interrupt(self: SharedExchange, wait_s: float) -> list[int]:
        ready = wait(self, wait_s)
        interrupt()
        return ready

    monkeypatch.setattr(lead, "Seat", InterruptedSeat)
    monkeypatch.setattr(SharedExchange, "_wait", wait_and_interrupt)


def is_at_rest(client: Client) -> bool:
    """Whether nothing is left that anybody could wait for."""
    shared = client._shared
    return not shared._lead.followers and shared._lead.thread is None and not shared._inbox
