"""The arenas' sockets when descriptors are scarce: in this process, so that its limit can move between two turns."""

from __future__ import annotations

import os
import resource
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.arenas import PAGE_BYTES, Offerer, closing, make_memfd
from tests.support.router import PATIENCE_S, make_endpoint
from trtd import observe
from trtd.errors import ErrorCode
from trtd.router.access import Access
from trtd.router.arena_hub import ArenaHub
from trtd.router.arenas import MAX_STRANGE, TenantArenas
from trtd.router.descriptors import Descriptors
from trtd.router.memfds import Closer
from trtd.router.poller import Poller
from trtd.wire.arenas import ArenaAccepted, ArenaOffered, ArenaRefused, Welcome, encode_packet


class OpenAccess(Access):
    """Everybody may use everything."""

    def __init__(self) -> None:
        """No socket, unlike the real one."""

    def admits(self, tenant: str, peer: object) -> bool:
        return True


class Bench:
    """One tenant's arenas, turned by hand."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "a.arenas"
        self.told: list[int] = []
        self.poller = Poller()
        self.hub = ArenaHub(
            OpenAccess(),
            self.poller,
            Descriptors(lambda: 1),
            0o600,
            has_bundles=True,
            tell_workers=self.told.append,
            clock=time.monotonic,
            log=observe.get_logger(),
        )
        self.tenant = TenantArenas(self.hub, make_endpoint(directory))
        self.clients: list[Offerer] = []

    def turn(self) -> None:
        """Serve what is there; something is."""
        assert self.has_work(PATIENCE_S), "nothing to do"
        self.poller.serve()

    def has_work(self, timeout_s: float = 0.0) -> bool:
        return bool(select.select([self.poller.fd], [], [], timeout_s)[0])

    def connect(self) -> Offerer:
        self.clients.append(Offerer(self.path))
        return self.clients[-1]

    def client(self) -> Offerer:
        """A client that was welcomed."""
        client = self.connect()
        self.turn()
        client.welcome()
        return client

    def offer(self, client: Offerer, fd: int, turn: Callable[[], None] | None = None) -> ArenaAccepted | ArenaRefused:
        client.send(encode_packet(ArenaOffered(1, PAGE_BYTES)), fd)
        (turn or self.turn)()
        answer = client.receive()
        assert isinstance(answer, ArenaAccepted | ArenaRefused)
        return answer

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.tenant.close()
        self.hub.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    observe.prepare()
    yield made
    made.close()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process gets no new descriptor meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_offer_without_a_descriptor_for_it(bench):
    """A descriptor that finds no room is lost and the offer is refused as retryable; the next one is taken."""
    client = bench.client()

    def poor_turn() -> None:
        with no_descriptors():
            bench.poller.serve()

    with closing(make_memfd()) as (fd,):
        refused = bench.offer(client, fd, poor_turn)
        assert isinstance(refused, ArenaRefused)
        assert (refused.code, refused.message) == (ErrorCode.OVERLOADED, "the router has no descriptor left")
        assert isinstance(bench.offer(client, fd), ArenaAccepted)


def test_a_client_without_a_descriptor_for_it(bench):
    """A connection that cannot be accepted waits without keeping the loop busy, and is welcomed when there is room."""
    waiting = bench.connect()
    assert bench.has_work(PATIENCE_S)
    with no_descriptors():
        bench.poller.serve()
        assert not bench.has_work()
    bench.tenant.look_after()
    bench.turn()
    assert isinstance(waiting.receive(), Welcome)


def test_descriptors_are_kept_for_others(bench):
    """Above the share of arenas neither a connection nor an arena is taken, and what they brought is closed."""
    client = bench.client()
    bench.hub.descriptors.max_fd = 0
    with closing(make_memfd()) as (fd,):
        refused = bench.offer(client, fd)
        assert isinstance(refused, ArenaRefused)
        assert (refused.code, refused.message) == (ErrorCode.OVERLOADED, "the router has no descriptors to spare")
    late = bench.connect()
    bench.turn()
    assert late.receive() is None


def test_descriptors_that_cannot_be_closed_end_connections(bench, monkeypatch):
    """While too many strange descriptors of a tenant wait to be closed, its clients are hung up on, not read."""
    stuck: list[Any] = []
    monkeypatch.setattr(Closer, "take", lambda _, fd: stuck.append(fd))
    monkeypatch.setattr(Closer, "waiting", property(lambda _: len(stuck)))
    client, bystander = bench.client(), bench.client()
    reader, writer = os.pipe()
    with closing(reader, writer):
        for _ in range(MAX_STRANGE):
            assert isinstance(bench.offer(client, reader), ArenaRefused)
        client.send(encode_packet(ArenaOffered(1, PAGE_BYTES)), reader)
        bench.turn()
        assert client.receive() is None
    assert len(stuck) == MAX_STRANGE
    for fd in stuck:
        os.close(fd)
    stuck.clear()
    with closing(make_memfd()) as (fd,):
        assert isinstance(bench.offer(bystander, fd), ArenaAccepted)


def test_one_turn_serves_a_bounded_number(bench):
    """Many clients that all have something to say are served over several turns of the loop."""
    clients = [bench.client() for _ in range(40)]
    with closing(make_memfd()) as (fd,):
        for client in clients:
            client.send(encode_packet(ArenaOffered(1, PAGE_BYTES)), fd)
        bench.turn()
        assert 0 < bench.tenant.book.count <= 16
        while bench.tenant.book.count < len(clients):
            bench.turn()
    for client in clients:
        assert isinstance(client.receive(), ArenaAccepted)
        client.close()
    while bench.tenant.book.count:
        bench.turn()
    assert len(bench.told) == len(clients)
