"""Connections of workers as the router reads them: each has its turn, and no more is read than is taken."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.batches import ResultEntry, Results, encode_worker_message
from tests.support.streams import StreamEnd
from trtd import observe
from trtd.child.stream import READ_BYTES
from trtd.core.ids import TenantName, WorkerId
from trtd.router.workers import News, Workers
from trtd.wire.messages import Attach

MESSAGES = 200
LOUD, QUIET = WorkerId(TenantName("a"), 0, 1), WorkerId(TenantName("b"), 0, 1)


class Desk:
    """The router's side of two attached workers, which does nothing unless it is told to."""

    def __init__(self, directory: Path) -> None:
        path = str(directory / "workers.sock")
        self._watched: dict[int, int] = {}
        self.workers = Workers(path, self._watched.__setitem__, observe.get_logger(), lambda *_: True)
        self.ends: dict[WorkerId, StreamEnd] = {}
        for worker in (LOUD, QUIET):
            self.workers.admit(worker, os.getpid())
            self.ends[worker] = StreamEnd.connect(path)
            self.ends[worker].send([encode_worker_message(Attach(*worker, models=()))])
            while not self.workers.ready:
                self.heed()
            arrived = self.workers.read()
            assert arrived is not None
            assert (arrived.worker, arrived.news) == (worker, News.ATTACHED)

    def heed(self) -> None:
        """What the loop does with its descriptors in one turn."""
        fds = [fd for fd, events in self._watched.items() if events]
        for fd in select.select(fds, (), (), 0)[0]:
            assert self.workers.heed(fd, select.EPOLLIN)

    def unread_bytes(self) -> int:
        """What was read of all connections and waits."""
        return sum(connection.stream.unread_bytes for connection in self.workers.ready)

    def close(self) -> None:
        for end in self.ends.values():
            end.close()
        self.workers.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def say(end: StreamEnd, count: int, frame: bytes = b"x") -> None:
    """Results of leases that nobody gave, so many messages."""
    for lease in range(count):
        end.send([encode_worker_message(Results(1, (ResultEntry(lease + 1, 1),))), frame])


def test_a_worker_that_never_stops_keeps_no_other_waiting(desk):
    """However much one worker has to say, the next message that is taken is the other one's."""
    say(desk.ends[LOUD], 200)
    desk.heed()
    assert desk.workers.read().worker == LOUD
    say(desk.ends[QUIET], 1)
    desk.heed()
    assert [desk.workers.read().worker for _ in range(3)] == [LOUD, QUIET, LOUD]


def test_what_is_not_taken_is_not_read(desk):
    """A worker that says more than the router takes waits; it does not pile up in the router."""
    say(desk.ends[LOUD], MESSAGES, bytes(READ_BYTES // 32))
    leases: list[int] = []
    while len(leases) < MESSAGES:
        desk.heed()
        arrived = desk.workers.read()
        # None: the message that was read last is not whole.
        leases += [lease for lease, *_ in arrived.results] if arrived is not None else []
        assert desk.unread_bytes() <= 2 * READ_BYTES
    assert leases == list(range(1, MESSAGES + 1))
