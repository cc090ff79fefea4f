"""The supervisor's side of the HTTP child: kept up through death and silence, gone with the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.daemon import children_of
from tests.support.status import make_status, make_tenant
from trtd.supervisor import health as health_module
from trtd.supervisor.health import HealthChild
from trtd.supervisor.loop import Supervisor

PATIENCE_S = 60.0


class Fleet:
    """What the child's keeper needs of a supervisor."""

    def __init__(self) -> None:
        self.processes = self
        self.spared: set[int] = set()

    def spare(self, pid: int) -> None:
        self.spared.add(pid)

    def spare_no_more(self, pid: int) -> None:
        self.spared.discard(pid)

    def status(self) -> Mapping[str, Any]:
        return make_status(make_tenant("a"))

    def metrics(self) -> Mapping[str, Any]:
        return {"status": self.status(), "tenants": []}


async def get(path: Path, address: str) -> bytes:
    """The whole answer; empty when there is none."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(f"GET {address} HTTP/1.1\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer
    return b""


def run(tmp_path: Path, scenario: Callable[[Path, Fleet], Awaitable[None]]) -> None:
    """Play a scenario beside a child that is kept up; nothing is left of it afterwards."""

    async def play() -> None:
        path, fleet = tmp_path / "http", Fleet()
        child = HealthChild(f"unix:{path}", cast("Supervisor", fleet), os.environ)
        child.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await scenario(path, fleet)
        finally:
            await child.close()
        assert not path.exists()
        assert not fleet.spared

    asyncio.run(play())
    assert not children_of(os.getpid())


async def other_child(fleet: Fleet, than: int) -> int:
    """The child's successor."""
    while not fleet.spared - {than}:
        await asyncio.sleep(0.01)
    (pid,) = fleet.spared - {than}
    return pid


def test_it_answers_from_the_first_moment(tmp_path):
    """A probe that is sent before the child runs waits for it, and nothing of the child is left at the end."""

    async def scenario(path: Path, _: Fleet) -> None:
        assert (await get(path, "/ready/a")).endswith(b"ready\n")
        assert b"trtd_tenant_ready" in await get(path, "/metrics")

    run(tmp_path, scenario)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_child_that_dies_or_falls_silent_is_replaced(tmp_path, monkeypatch, number):
    """A dead child is replaced at once, one that stands still after the patience with its silence."""
    monkeypatch.setattr(health_module, "SILENCE_S", 3.0)

    async def scenario(path: Path, fleet: Fleet) -> None:
        assert await get(path, "/live")
        (first,) = fleet.spared
        os.kill(first, number)
        await other_child(fleet, first)
        assert (await get(path, "/live")).endswith(b"live\n")

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"[1]\n", b'{"ask": "reboot"}\n', b'{"ask": []}\n', b"x" * 1000 + b"\n"]
)
def test_a_child_that_asks_for_more_gets_nothing(tmp_path, line):
    """A question that is none ends that life of the child; the supervisor takes no harm and does nothing for it."""

    async def play() -> None:
        child = HealthChild(f"unix:{tmp_path / 'http'}", cast("Supervisor", Fleet()), os.environ)
        reader, writer = asyncio.StreamReader(limit=256), asyncio.StreamReader()
        reader.feed_data(line)
        cause = await child._answer(reader, cast("asyncio.StreamWriter", writer))
        assert cause
        assert "\n" not in cause

    asyncio.run(play())


def test_a_lost_socket_is_bound_again(tmp_path):
    """Where the path was taken away it is bound again, and probes are answered there; a file of others stays."""
    path, fleet = tmp_path / "http", Fleet()

    async def play() -> None:
        child = HealthChild(f"unix:{path}", cast("Supervisor", fleet), os.environ)
        child.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                assert b"200 OK" in await get(path, "/live")
                child.look_after()
                path.unlink()
                path.write_text("mine")
                for _ in range(2):
                    with pytest.raises(FileExistsError):
                        child.look_after()
                assert path.read_text() == "mine"
                path.unlink()
                child.look_after()
                while b"200 OK" not in await get(path, "/live"):
                    await asyncio.sleep(0.01)
        finally:
            await child.close()
        assert not path.exists()

    asyncio.run(play())
    assert not children_of(os.getpid())
