"""The HTTP child's questions to the supervisor: few, fresh, and no wait without end. The test is the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from trtd.health import link as links
from trtd.health.answers import SupervisorSilent
from trtd.health.link import Link
from trtd.health.server import MAX_CONNECTIONS, Server
from trtd.wire.health import ASK_BEAT, ASK_STATUS

PATIENCE_S = 10.0


class Supervisor:
    """The other end of the link: hands out questions, and answers them when the test says so."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def asked(self) -> str:
        return str(json.loads(await self._reader.readline())["ask"])

    def answer(self, record: Any) -> None:
        self.writer.write(json.dumps(record).encode() + b"\n")


def run(scenario: Callable[[Link, Supervisor], Awaitable[None]]) -> None:
    """Play a scenario with a link that runs."""

    async def play() -> None:
        ours, theirs = socket.socketpair()
        supervisor = Supervisor(*await asyncio.open_unix_connection(sock=ours))
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        link = Link(reader, writer)
        running = asyncio.create_task(link.run())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await scenario(link, supervisor)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            writer.close()
            supervisor.writer.close()

    asyncio.run(play())


def test_many_probes_are_one_question():
    """Requests that come together share one question and its answer."""

    async def scenario(link: Link, supervisor: Supervisor) -> None:
        asks = [asyncio.create_task(link.ask(ASK_STATUS)) for _ in range(50)]
        assert await supervisor.asked() == ASK_STATUS
        supervisor.answer({"n": 1})
        assert await asyncio.gather(*asks) == [{"n": 1}] * 50

    run(scenario)


def test_no_answer_is_older_than_its_request():
    """A request that comes while a question is under way waits for the next one: it may be about what just happened."""

    async def scenario(link: Link, supervisor: Supervisor) -> None:
        first = asyncio.create_task(link.ask(ASK_STATUS))
        assert await supervisor.asked() == ASK_STATUS
        second = asyncio.create_task(link.ask(ASK_STATUS))
        await asyncio.sleep(0)
        supervisor.answer({"n": "before"})
        assert await first == {"n": "before"}
        assert await supervisor.asked() == ASK_STATUS
        assert not second.done()
        supervisor.answer({"n": "after"})
        assert await second == {"n": "after"}

    run(scenario)


def test_a_silent_supervisor_is_told(monkeypatch):
    """Without an answer in time the request fails; a late answer goes to nobody, and the next request has its own."""
    monkeypatch.setattr(links, "PATIENCE_S", 0.05)

    async def scenario(link: Link, supervisor: Supervisor) -> None:
        with pytest.raises(SupervisorSilent, match=r"said nothing for 0\.05 s"):
            await link.ask(ASK_STATUS)
        monkeypatch.setattr(links, "PATIENCE_S", PATIENCE_S)
        later = asyncio.create_task(link.ask(ASK_STATUS))
        assert await supervisor.asked() == ASK_STATUS
        supervisor.answer({"n": "late"})
        assert await supervisor.asked() == ASK_STATUS
        supervisor.answer({"n": "own"})
        assert await later == {"n": "own"}

    run(scenario)


def test_the_supervisor_hears_that_its_child_lives(monkeypatch):
    """Without any request a beat is asked for now and then."""
    monkeypatch.setattr(links, "BEAT_EVERY_S", 0.01)

    async def scenario(_: Link, supervisor: Supervisor) -> None:
        for _ in range(3):
            assert await supervisor.asked() == ASK_BEAT
            supervisor.answer({})

    run(scenario)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b"HTTP/1.1 408 "),
        (b"GET /live HT", b"HTTP/1.1 408 "),
        (b"GET /live HTTP/1.1\r\nA: " + b"x" * 20_000, b"HTTP/1.1 431 "),
        (b"POST /live HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 "),
        (b"GET /live HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 "),
    ],
)
def test_every_peer_gets_an_answer_and_an_end(sent, status):
    """Whether a peer says nothing, too little, too much or something wrong: one answer, and the connection closes."""

    async def beat(_: str) -> Any:
        return {}

    async def play() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            server = await Server(sock, beat, head_timeout_s=0.1).start()
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            writer.write(sent)
            async with asyncio.timeout(PATIENCE_S):
                answer = await reader.read()
            writer.close()
            server.close()
            await server.wait_closed()
            return answer

    assert asyncio.run(play()).startswith(status)


def test_slow_peers_keep_no_prompt_one_out():
    """With far more silent connections than places, each probe is answered at once; the oldest silent ones went."""

    async def beat(_: str) -> Any:
        return {}

    async def play() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            server = await Server(sock, beat, head_timeout_s=PATIENCE_S).start()
            silent = [await asyncio.open_connection(*sock.getsockname()) for _ in range(3 * MAX_CONNECTIONS)]
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(5):
                    reader, writer = await asyncio.open_connection(*sock.getsockname())
                    writer.write(b"GET /live HTTP/1.1\r\n\r\n")
                    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
                    writer.close()
                with contextlib.suppress(ConnectionResetError):
                    assert await silent[0][0].read() == b""
            assert not silent[-1][0].at_eof()
            for _, writer in silent:
                writer.close()
            server.close()
            await server.wait_closed()

    asyncio.run(play())
