"""Many requests through one client: windows, order, errors, what leaves together, what is given up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.support.client_router import WAIT_S, Received, StandInRouter
from trtd.client import Client, aio, shared
from trtd.errors import ErrorCode, Overloaded, TrtdError, Unreachable, UnsupportedDtype, Usage


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/a.sock"


@pytest.fixture
def router(address: str) -> Iterator[StandInRouter]:
    with StandInRouter(address) as router:
        router.take_arenas(has_bundles=True)
        yield router


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout=WAIT_S) as client:
        yield client


def x(value: float) -> dict[str, np.ndarray]:
    return {"x": np.full(4, value, np.float32)}


def value_of(received: Received) -> float:
    return float(np.frombuffer(received.tensors[0], np.float32)[0])


def values_of(answers: Iterable[object]) -> list[object]:
    return [answer if isinstance(answer, TrtdError) else float(answer["x"][0]) for answer in answers]  # type: ignore[index]  # an Answer


def until_it_fails(answers: Iterator[object]) -> tuple[list[object], Exception | None]:
    """What an iteration yields, and the error that ends it."""
    values: list[object] = []
    try:
        for answer in answers:
            values += values_of([answer])
    except Exception as error:  # it is what the test asks for
        return values, error
    return values, None


class Echo:
    """Answers in a thread; fails the values that it is told to, and counts how requests came."""

    def __init__(self, router: StandInRouter, failing: Iterable[float] = ()) -> None:
        self._router = router
        self._failing = set(failing)
        self.came: Counter[str] = Counter()
        self.most_values = 0.0
        router.serve(self._answer)

    def _answer(self, received: Received) -> None:
        self.came["bundled" if received.is_bundled else "single"] += 1
        if value_of(received) in self._failing:
            self._router.refuse(received, ErrorCode.OVERLOADED, "full")
        else:
            self._router.answer(received)


def welcome(client: Client) -> None:
    """Until the client knows that bundles are taken."""
    deadline = time.monotonic() + WAIT_S
    while not client._arenas.has_bundles:
        assert time.monotonic() < deadline
        client.infer("m", x(0))


async def welcome_awaited(client: aio.Client) -> None:
    """The same of the client for asyncio."""
    deadline = time.monotonic() + WAIT_S
    while not client._arenas.has_bundles:
        assert time.monotonic() < deadline
        await client.infer("m", x(0))


@pytest.mark.parametrize("window", [1, 2, 7, 64, 1000])
def test_answers_come_in_the_order_of_the_inputs(router, client, window):
    """Whatever the window, each input gets its own answer in its own place, and no more are under way than allowed."""
    Echo(router)
    welcome(client)
    under_way = most = 0

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        nonlocal under_way, most
        for number in range(300):
            under_way += 1
            most = max(most, under_way)
            yield x(number)

    values = []
    for answer in client.infer_many("m", inputs(), window=window):
        under_way -= 1
        values += values_of([answer])
    assert values == list(range(300))
    assert most <= window + 1


def test_who_has_to_wait_uses_the_room_that_there_is(router, client):
    """With one place free of six a caller sends one request more before it waits, too few for a bundle as it is."""
    waiting: list[Received] = []

    def answer(received: Received) -> None:
        waiting.append(received)
        if value_of(received) == 0 or value_of(received) >= 6:
            for each in waiting:
                router.answer(each)
            waiting.clear()

    router.serve(answer)
    welcome(client)
    assert values_of(client.infer_many("m", (x(number) for number in range(9)), window=6)) == list(range(9))


def test_small_requests_leave_together(router, client):
    """Of a thousand requests most leave in bundles, and none does with a daemon that takes none."""
    echo = Echo(router)
    welcome(client)
    echo.came.clear()
    assert len(list(client.infer_many("m", (x(number) for number in range(1000))))) == 1000
    assert echo.came["bundled"] > 300
    assert echo.came.total() == 1000
    client._arenas.has_bundles = False
    echo.came.clear()
    assert len(list(client.infer_many("m", (x(number) for number in range(100))))) == 100
    assert echo.came == {"single": 100}


def test_a_single_request_leaves_as_it_is(router, client):
    """One at a time is never bundled, whatever the daemon takes."""
    echo = Echo(router)
    welcome(client)
    echo.came.clear()
    for number in range(20):
        client.infer("m", x(number))
    assert echo.came == {"single": 20}


def test_no_inputs(router, client):
    """Nothing in, nothing out."""
    assert list(client.infer_many("m", [])) == []


def test_an_error_is_raised_in_its_place(router, client):
    """What came before an error is yielded, then it is raised, and the rest is given up."""
    Echo(router, failing=[5.0])
    values, error = until_it_fails(client.infer_many("m", (x(number) for number in range(100)), window=16))
    assert values == [0, 1, 2, 3, 4]
    assert isinstance(error, Overloaded)
    assert len(client._shared._exchange) == 0
    assert not client._shared._inbox


def test_errors_can_stand_in_their_places(router, client):
    """With `return_errors` the iteration goes on: the daemon's errors and those of a bad call are yielded."""
    Echo(router, failing=[2.0])
    inputs = [x(0), {"x": np.array(["a"])}, x(2), x(3)]
    zero, text, refused, three = values_of(client.infer_many("m", inputs, return_errors=True))
    assert (zero, three) == (0, 3)
    assert isinstance(text, UnsupportedDtype)
    assert isinstance(refused, Overloaded)
    with pytest.raises(UnsupportedDtype):
        list(client.infer_many("m", inputs))


def test_a_source_that_fails(router, client):
    """An error of the iterable itself comes out after the answers to what it gave."""
    Echo(router)

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        yield from (x(0), x(1))
        raise OSError("the disk is gone")

    values, error = until_it_fails(client.infer_many("m", inputs()))
    assert values == [0, 1]
    assert isinstance(error, OSError)


def test_arguments_are_checked_at_once(client):
    """A window without room, a timeout or a priority that cannot be: refused by the call, not by the iteration."""
    for arguments in ({"window": 0}, {"timeout": 0.0}, {"priority": 9}):
        with pytest.raises(Usage, match=next(iter(arguments))):
            client.infer_many("m", [], **arguments)


def test_ending_early_gives_up_the_rest(router, client):
    """When the loop is left, what is under way or held is forgotten here, and the client goes on."""
    Echo(router)
    welcome(client)
    answers = client.infer_many("m", (x(number) for number in range(1000)), window=64)
    assert values_of([next(answers)]) == [0]
    answers.close()  # type: ignore[attr-defined]  # a generator
    assert len(client._shared._exchange) == 0
    assert not client._shared._inbox
    assert values_of([client.infer("m", x(7))]) == [7]


def test_a_slow_source_has_its_inputs_sent(router, client):
    """What a source gave leaves though the source keeps the caller waiting for the next, also after a burst."""
    received: list[float] = []
    arrived = threading.Condition()

    def answer(request: Received) -> None:
        with arrived:
            received.append(value_of(request))
            arrived.notify()
        router.answer(request)

    router.serve(answer)
    welcome(client)
    received.clear()

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        for burst in range(20):
            for number in range(burst):
                yield x(number)
            with arrived:
                for _ in range(burst):
                    assert arrived.wait_for(lambda: received, WAIT_S), (burst, number)
                    received.pop()
                received.clear()

    assert len(list(client.infer_many("m", inputs(), window=64))) == sum(range(20))


def test_many_through_a_client_that_is_closed(router, client):
    """Closing the client ends the iteration with an error, and a closed client begins none."""
    answers = client.infer_many("m", (x(number) for number in range(100)), window=8)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, answers)
        router.receive()
        client.close()
        with pytest.raises(Unreachable, match="closed"):
            first.result(WAIT_S)
    with pytest.raises(Usage, match="closed"):
        list(client.infer_many("m", [x(0)]))


def test_many_over_a_new_router(address, client):
    """When the router is replaced in the middle, every answer still comes once and in its place."""
    total = 2000
    first = StandInRouter(address)
    first.take_arenas(has_bundles=True)
    Echo(first)
    successor: list[StandInRouter] = []

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        for number in range(total):
            if number in {500, 1200}:
                (successor[-1] if successor else first).close()
                successor.append(StandInRouter(address))
                successor[-1].take_arenas(has_bundles=True)
                Echo(successor[-1])
            yield x(number)

    assert values_of(client.infer_many("m", inputs())) == list(range(total))
    successor[-1].close()


def test_many_threads_share_a_connection(router, client, monkeypatch):
    """Threads that call at the same time all get their own answers, by `infer`, `submit` and `infer_many` alike."""
    monkeypatch.setattr(shared, "PATIENCE_S", 0.001)
    Echo(router)
    welcome(client)

    def call(thread: int) -> list[object]:
        base = thread * 1000
        if thread % 3 == 0:
            return values_of(client.infer_many("m", (x(base + number) for number in range(100)), window=8))
        if thread % 3 == 1:
            handles = [client.submit("m", x(base + number)) for number in range(100)]
            return values_of(handle.result() for handle in handles)
        return values_of(client.infer("m", x(base + number)) for number in range(100))

    with ThreadPoolExecutor(9) as pool:
        for thread, values in enumerate(pool.map(call, range(9))):
            assert values == [thread * 1000 + number for number in range(100)]


def test_what_threads_submit_meanwhile_leaves_together(router, client, monkeypatch):
    """Requests that come while the connection is busy wait for it and leave as one message."""
    Echo(router)
    welcome(client)
    transport = client._shared._exchange.transport
    send = transport.send
    sends: list[bytes] = []

    def count(header: bytes, tensors: Sequence[object]) -> bool:
        sends.append(header)
        return send(header, tensors)

    monkeypatch.setattr(transport, "send", count)
    with ThreadPoolExecutor(8) as pool:
        with client._shared._lock:
            handles = [pool.submit(client.submit, "m", x(number)) for number in range(8)]
            deadline = time.monotonic() + WAIT_S
            while len(client._shared._inbox) < 8:
                assert time.monotonic() < deadline
        client._shared.flush(time.monotonic(), is_detached=False)
        values = sorted(float(handle.result().result()["x"][0]) for handle in handles)
    assert values == list(range(8))
    assert len(sends) == 1


def test_the_asyncio_client_has_windows_too(router, address):
    """Answers in order, from ordinary and from asynchronous iterables, errors in their places or raised."""
    Echo(router, failing=[50.0])

    async def inputs(count: int):
        for number in range(count):
            if number % 10 == 0:
                await asyncio.sleep(0)
            yield x(number)

    async def talk() -> None:
        async with aio.Client(address, timeout=WAIT_S) as client:
            assert values_of([answer async for answer in client.infer_many("m", map(x, range(50)))]) == list(range(50))
            assert values_of([answer async for answer in client.infer_many("m", inputs(50), window=7)]) == list(
                range(50)
            )
            values = values_of([one async for one in client.infer_many("m", inputs(60), return_errors=True)])
            assert isinstance(values.pop(50), Overloaded)
            assert len(values) == 59
            raising = client.infer_many("m", inputs(90))
            assert values_of([await anext(raising) for _ in range(50)]) == list(range(50))
            with pytest.raises(Overloaded):
                await anext(raising)
            with pytest.raises(UnsupportedDtype):
                async for _ in client.infer_many("m", [{"x": np.array(["a"])}]):
                    pass
            with pytest.raises(Usage, match="window"):
                async for _ in client.infer_many("m", [], window=0):
                    pass
            assert len(client._exchange) == 0

    asyncio.run(talk())


def test_tasks_leave_together(router, address):
    """Requests of tasks that run in one turn of the event loop are one message, and a lone one leaves at once."""
    echo = Echo(router)

    async def talk() -> None:
        async with aio.Client(address, timeout=WAIT_S) as client:
            await welcome_awaited(client)
            echo.came.clear()
            answers = await asyncio.gather(*[client.infer("m", x(number)) for number in range(40)])
            assert values_of(answers) == list(range(40))

    asyncio.run(talk())
    assert echo.came == {"single": 1, "bundled": 39}


def test_tasks_that_are_answered_together_ask_together(router, address):
    """Tasks that ask again when they are answered stay together: none runs ahead, though nothing is under way then."""
    rounds: list[list[Received]] = [[]]

    def answer(received: Received) -> None:
        if value_of(received) == 0:
            router.answer(received)
            return
        rounds[-1].append(received)
        if len(rounds[-1]) == 8:
            router.answer_together(rounds[-1])
            rounds.append([])

    async def talk() -> None:
        async with aio.Client(address, timeout=WAIT_S) as client:
            await welcome_awaited(client)

            async def ask(number: int) -> None:
                for _ in range(3):
                    await client.infer("m", x(number))

            await asyncio.gather(*map(ask, range(1, 9)))

    router.serve(answer)
    asyncio.run(talk())
    assert [[received.is_bundled for received in each] for each in rounds[1:]] == [[True] * 8, [True] * 8, []]
