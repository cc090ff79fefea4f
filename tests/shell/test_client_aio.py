"""The asyncio client against a router whose every answer the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.client_router import WAIT_S, Received, StandInRouter
from trtd import aio
from trtd.client import pending
from trtd.errors import DeadlineExceeded, ErrorCode, NotAllowed, Overloaded, Unreachable, Usage
from trtd.wire.messages import Dtype, ModelDescription, TensorContract


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/a.sock"


def x(value: float = 1.0) -> dict[str, np.ndarray]:
    return {"x": np.full((1, 4), value, dtype=np.float32)}


def run(address: str, story: Callable[[aio.Client], Awaitable[Any]], *, timeout: float = WAIT_S) -> Any:
    async def main() -> Any:
        async with aio.Client(address, timeout=timeout) as client:
            return await asyncio.wait_for(story(client), 2 * WAIT_S)

    return asyncio.run(main())


async def receive(router: StandInRouter) -> Received:
    return await asyncio.to_thread(router.receive)


def test_many_tasks_on_one_connection(address):
    """Hundreds of tasks await requests side by side, and each gets its own answer."""

    async def story(client):
        answers = await asyncio.gather(*(client.infer("m", x(value)) for value in range(500)))
        return [answer["x"][0, 0] for answer in answers]

    with StandInRouter(address) as router:
        router.serve(router.answer)
        assert run(address, story) == list(range(500))


def test_descriptions_health_and_errors(address):
    """Models, health and typed errors come over the same connection."""
    model = ModelDescription("m", "1", (TensorContract("x", Dtype.INT8, (None, 3)),), (), True, 4)

    async def story(client):
        asked = asyncio.ensure_future(client.describe("m"))
        router.describe(await receive(router), (model,))
        assert await asked == (model,)
        asked = asyncio.ensure_future(client.health())
        router.tell_health(await receive(router), "ready")
        assert (await asked).is_ready
        asked = client.submit("m", x())
        router.refuse(await receive(router), ErrorCode.OVERLOADED, "full", 2.0)
        with pytest.raises(Overloaded, match="full") as caught:
            await asked
        assert caught.value.retry_after_s == 2.0

    with StandInRouter(address) as router:
        run(address, story)


def test_a_restarted_router_gets_what_is_unanswered(address):
    """After a reconnection the same ids come again, marked, and are answered."""

    async def story(client):
        futures = [client.submit("m", x(value)) for value in range(3)]
        first = [await receive(router) for _ in futures]
        await asyncio.to_thread(router.close)
        with StandInRouter(address) as successor:
            for before in first:
                again = await receive(successor)
                assert again.message.id == before.message.id
                assert again.message.is_resent
                successor.answer(again)
            return [(await future)["x"][0, 0] for future in futures]

    router = StandInRouter(address)
    assert run(address, story) == [0.0, 1.0, 2.0]


def test_deadlines(address, monkeypatch):
    """Without a daemon a call is unreachable after its timeout; one that is silent exceeds its deadline."""
    monkeypatch.setattr(pending, "GRACE_S", 0.02)

    async def story(client):
        long = client.submit("m", x())
        with pytest.raises(Unreachable, match=r"within 0\.05 s"):
            await client.infer("m", x(), timeout=0.05)
        with StandInRouter(address) as router:
            received = await receive(router)
            with pytest.raises(DeadlineExceeded):
                await client.infer("m", x(), timeout=0.05)
            router.answer(received)
            assert (await long).model == "m"

    run(address, story)


def test_not_allowed(address):
    """A daemon that refuses the user makes requests fail as not allowed."""

    async def story(client):
        for _ in range(2):
            with pytest.raises(NotAllowed):
                await client.infer("m", x())

    with StandInRouter(address, zap_status=b"400"):
        run(address, story)


def test_a_cancelled_task_disturbs_nobody(address):
    """The answer to a cancelled request is dropped, and the others arrive."""

    async def story(client):
        cancelled, kept = client.submit("m", x(1.0)), client.submit("m", x(2.0))
        received = [await receive(router) for _ in range(2)]
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert len(client._exchange) == 1
        for each in received:
            router.answer(each)
        assert (await kept)["x"][0, 0] == 2.0
        assert len(client._exchange) == 0

    with StandInRouter(address) as router:
        run(address, story)


@pytest.mark.parametrize("arguments", [{"timeout": 0}, {"timeout": float("nan")}, {"priority": 8}])
def test_arguments_out_of_range(address, arguments):
    """A timeout or a priority that no request can have is refused in the call, each time."""

    async def story(client):
        for _ in range(2):
            with pytest.raises(Usage, match="has to be"):
                await client.infer("m", x(), **arguments)
        assert len(client._exchange) == 0

    run(address, story)


def test_what_is_cancelled_before_it_left_never_leaves(address):
    """A request that is cancelled while it waits for others to leave with is not sent."""

    async def story(client):
        await client.infer("m", x())
        first, cancelled, last = (client.submit("m", x(value)) for value in (1.0, 2.0, 3.0))
        assert cancelled.cancel()
        assert not cancelled.cancel()
        return [(await future)["x"][0, 0] for future in (first, last)]

    with StandInRouter(address) as router:
        router.serve(router.answer)
        assert run(address, story) == [1.0, 3.0]
        assert router.served == 3


def test_deadlines_of_any_order(address, monkeypatch):
    """A request is given up in time after an answered one that had longer, and after one whose time is up first."""
    monkeypatch.setattr(pending, "GRACE_S", 0.02)

    def answer(received: Received) -> None:
        if received.tensors[0] == x(1.0)["x"].tobytes():
            router.answer(received)

    async def story(client):
        await client.infer("m", x(1.0))
        with pytest.raises(DeadlineExceeded):
            await client.infer("m", x(2.0), timeout=0.05)
        await client.infer("m", x(1.0), timeout=0.2)
        with pytest.raises(DeadlineExceeded):
            await client.infer("m", x(2.0), timeout=0.3)

    with StandInRouter(address) as router:
        router.serve(answer)
        run(address, story)


def test_more_requests_than_a_connection_takes(address):
    """Thousands of requests while the daemon does not read are kept here and sent when it does."""

    async def story(client):
        futures = [client.submit("m", x(value)) for value in range(3000)]
        await receive(router)
        router.serve(router.answer)
        answers = await asyncio.gather(*futures[1:])
        return [answer["x"][0, 0] for answer in answers]

    with StandInRouter(address) as router:
        assert run(address, story) == list(range(1, 3000))


def test_close_ends_what_is_under_way(address):
    """Closing ends pending requests as unreachable, is repeatable, and refuses later calls."""

    async def story(client):
        future = client.submit("m", x())
        await receive(router)
        await client.close()
        with pytest.raises(Unreachable, match="closed"):
            await future
        await client.close()
        with pytest.raises(Usage, match="closed"):
            await client.infer("m", x())

    with StandInRouter(address) as router:
        run(address, story)


def test_another_event_loop_is_refused(address):
    """A client belongs to the loop of its first call and says so in another one."""
    client = aio.Client(address, timeout=0.01)

    async def call() -> None:
        await client.health()

    with pytest.raises(Unreachable):
        asyncio.run(call())
    with pytest.raises(Usage, match="event loop"):
        asyncio.run(call())
    asyncio.run(client.close())
