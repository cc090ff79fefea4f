"""The endpoint for workers: which connection speaks for which worker, requests out, results in.

A worker is known to the router when two words agree: the supervisor's (`WorkerAdmitted`: this life, this pid) and its
own (`Attach`, on a connection whose pid the kernel checked). Either may come first.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from enum import Enum
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from trtd.child.stream import Stream, StreamClosed, peer_of
from trtd.core.ids import TenantName, WorkerId
from trtd.core.requests import Dispatch, ResultFields
from trtd.errors import Malformed
from trtd.observe import Logger, RateLimit
from trtd.router.places import without_area
from trtd.router.sockets import listen
from trtd.wire.batches import (
    MAX_ATTACH_BYTES,
    Items,
    decode_worker_items,
    encode_arena_message,
    encode_batch_items,
)
from trtd.wire.messages import ArenaClosed, ArenaOpened, Attach, ModelDescription

MAX_CONNECTIONS = 4096
"""Connections of processes of the daemon's own user, named by the supervisor or not."""
SOCKET_MODE = 0o600

READABLE = select.EPOLLIN
READABLE_AND_WRITABLE = select.EPOLLIN | select.EPOLLOUT


class Claim(NamedTuple):
    """Who a process says it is: the life of a worker, and the pid that the kernel knows."""

    worker: WorkerId
    pid: int


class News(Enum):
    """What a worker's connection brought."""

    ATTACHED = "it is ready for work, or again"
    ANSWERED = "it has results"
    LOST = "its connection is gone"


class Arrived(NamedTuple):
    """News of one worker; results are empty unless it answered."""

    worker: WorkerId
    news: News
    results: Sequence[ResultFields]


class Connection:
    """One connection of a process that says, or will say, which worker it is.

    Attributes:
        stream: its messages.
        fd: of the stream, also after it was closed.
        pid: as the kernel knows it.
        attach: what it said.
        worker: whom it speaks for, once the supervisor has named it.
        arenas: keys of those that it was told of.
        has_ended: whether it is closed, and only has to be read to its end.
    """

    __slots__ = ("arenas", "attach", "fd", "has_ended", "pid", "stream", "worker")

    def __init__(self, stream: Stream, pid: int) -> None:
        self.stream = stream
        self.fd = stream.fileno()
        self.pid = pid
        self.attach: Attach | None = None
        self.worker: WorkerId | None = None
        self.arenas: set[int] = set()
        self.has_ended = False

    @property
    def claim(self) -> Claim | None:
        """Who it says it is."""
        attach = self.attach
        if attach is None:
            return None
        return Claim(WorkerId(TenantName(attach.tenant), attach.replica, attach.generation), self.pid)


class Workers:
    """All connections of workers. The decisions about work are the dispatcher's.

    Args:
        path: of the unix socket at which workers connect.
        watch: called with a descriptor and the epoll events that are wanted of it, 0 before it is closed.
        log: for connections that are refused or end in an error.

    Attributes:
        ready: connections from which `read` may get something.

    Raises:
        OSError: the path cannot be had.
    """

    def __init__(self, path: str, watch: Callable[[int, int], None], log: Logger) -> None:
        self._path = Path(path)
        self._watch = watch
        self._log = log
        self._limit = RateLimit(1.0)
        self._own_uid = os.geteuid()
        self._listener = listen(self._path, SOCKET_MODE)
        self._connections: dict[int, Connection] = {}
        self.ready: dict[Connection, None] = {}
        self._pids: dict[WorkerId, int] = {}
        self._speakers: dict[WorkerId, Connection] = {}
        self._models: dict[TenantName, tuple[ModelDescription, ...]] = {}
        watch(self._listener.fileno(), READABLE)

    def has_any(self, tenant: TenantName) -> bool:
        """Whether a worker of the tenant can be reached."""
        return any(worker.tenant == tenant for worker in self._speakers)

    def models(self, tenant: TenantName) -> tuple[ModelDescription, ...]:
        """What the tenant's worker that came last serves; also while there is none at the moment."""
        return self._models.get(tenant, ())

    # What the supervisor says

    def admit(self, worker: WorkerId, pid: int) -> bool:
        """The supervisor named a worker; True when it has attached already."""
        self._pids[worker] = pid
        if worker in self._speakers:
            return True
        claim = Claim(worker, pid)
        for connection in self._connections.values():
            if connection.worker is None and connection.claim == claim:
                self._join(connection, worker)
                return True
        return False

    def forget(self, worker: WorkerId) -> None:
        """This life of the worker is over."""
        self._pids.pop(worker, None)
        connection = self._speakers.pop(worker, None)
        if connection is not None:
            self._close(connection)

    def forget_tenant(self, tenant: TenantName) -> None:
        """The tenant is gone for good."""
        for worker in [worker for worker in self._pids if worker.tenant == tenant]:
            self.forget(worker)
        self._models.pop(tenant, None)

    def close_arena(self, key: int) -> None:
        """No request names the arena any more: tell those who know it."""
        header = encode_arena_message(ArenaClosed(key))
        for connection in list(self._connections.values()):
            if key in connection.arenas:
                connection.arenas.discard(key)
                self._send(connection, [header])

    # Reading

    def heed(self, fd: int, events: int) -> bool:
        """A descriptor is ready for something; False when it is none of the workers'."""
        connection = self._connections.get(fd)
        if connection is None:
            if fd != self._listener.fileno():
                return False
            self._accept()
            return True
        if events & select.EPOLLOUT:
            self._flush(connection)
        if events & ~select.EPOLLOUT and not connection.has_ended:
            self._fill(connection)
        return True

    def read(self) -> Arrived | None:
        """The next news that concern the dispatcher; None when there are none.

        Raises:
            Malformed: a message is none of a worker, or not of one that may send it. It was read off.
        """
        while self.ready:
            connection = next(iter(self.ready))
            try:
                frames = connection.stream.receive()
            except Malformed as error:
                self._report("worker.stream_broken", pid=connection.pid, cause=error.message)
                self._end(connection)
                frames = None
            if frames is None or not (connection.stream.unread_bytes or connection.has_ended):
                self.ready.pop(connection, None)
            if frames is None:
                if connection.has_ended and (worker := self._lose(connection)) is not None:
                    return Arrived(worker, News.LOST, ())
                continue
            arrived = self._take(connection, frames)
            if arrived is not None:
                return arrived
        return None

    def _take(self, connection: Connection, frames: list[memoryview]) -> Arrived | None:
        """What one message means; None where it does not concern the dispatcher (yet)."""
        if not frames or len(frames[0]) > MAX_ATTACH_BYTES:
            raise Malformed("a worker's message has no header, or too long a one")
        message = decode_worker_items(frames[0])
        if not isinstance(message, tuple):
            connection.attach = message
            worker = connection.claim[0]  # type: ignore[index]  # it has just attached
            if self._pids.get(worker) != connection.pid:
                return None
            former = self._speakers.pop(worker, None)
            if former is not None and former is not connection:
                former.worker = None
                self._close(former)
            self._join(connection, worker)
            return Arrived(worker, News.ATTACHED, ())
        generation, leases, frame_counts, codes = message
        speaker = connection.worker
        if speaker is None or speaker.generation != generation:
            raise Malformed(f"results of generation {generation} from a stranger (pid {connection.pid})")
        return Arrived(speaker, News.ANSWERED, split_results(leases, frame_counts, codes, frames))

    # Writing

    def send(self, effect: Dispatch, now: float) -> None:
        """Hand requests to a worker; one whose connection is gone has lost them, as the news of it will tell."""
        connection = self._speakers.get(effect.worker)
        if connection is None:
            return
        alone = effect.must_run_alone
        flat: list[Any] = []
        frames: list[Any] = [b""]
        for lease, request in effect.requests:
            payload = request.payload
            if request.memory:
                self._introduce(connection, request.memory)
                if request.attempts > 1:
                    payload = without_area(payload)
            queue_us = int((now - request.received_at) * 1e6)
            remaining_us = int((request.deadline - now) * 1e6)
            flat += lease, len(payload), queue_us if queue_us > 0 else 0, remaining_us if remaining_us > 0 else 0, alone
            frames += payload
        frames[0] = encode_batch_items(effect.worker.generation, int(now * 1e6), flat)
        self._send(connection, frames)

    def _introduce(self, connection: Connection, arenas: Sequence[Any]) -> None:
        """Tell a worker of the arenas that it has not heard of."""
        for arena in arenas:
            if arena.key not in connection.arenas:
                connection.arenas.add(arena.key)
                header = encode_arena_message(ArenaOpened(arena.key, arena.size_bytes))
                self._send(connection, [header], (arena.fd,))

    def _send(self, connection: Connection, frames: Sequence[Any], fds: Sequence[int] = ()) -> None:
        try:
            connection.stream.send(frames, fds)
        except StreamClosed:
            self._end(connection)
        else:
            if connection.stream.has_output:
                self._watch(connection.fd, READABLE_AND_WRITABLE)

    def _flush(self, connection: Connection) -> None:
        try:
            connection.stream.flush()
        except StreamClosed:
            self._end(connection)
        else:
            if not connection.stream.has_output:
                self._watch(connection.fd, READABLE)

    # Connections

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._report("worker.accept_failed", cause=str(error))
                return
            pid, uid, _ = peer_of(sock)
            if uid != self._own_uid or len(self._connections) >= MAX_CONNECTIONS:
                self._report("peer.refused", endpoint=str(self._path), address=f"uid {uid}, pid {pid}")
                sock.close()
                continue
            connection = Connection(Stream(sock), pid)
            self._connections[connection.fd] = connection
            self._watch(connection.fd, READABLE)

    def _fill(self, connection: Connection) -> None:
        try:
            connection.stream.fill()
        except (StreamClosed, Malformed):
            self._end(connection)
        else:
            self.ready[connection] = None

    def _end(self, connection: Connection) -> None:
        """The peer is gone; what it said before is still to be read."""
        if not connection.has_ended:
            connection.has_ended = True
            self._watch(connection.fd, 0)
        self.ready[connection] = None

    def _lose(self, connection: Connection) -> WorkerId | None:
        """Close an ended connection; the worker that has no other one now."""
        worker = connection.worker
        if worker is not None:
            del self._speakers[worker]
        self._close(connection)
        return worker

    def _report(self, event: str, **fields: object) -> None:
        """Log what strangers can make happen, without letting it fill the log."""
        held_back = self._limit.take(event, time.monotonic())
        if held_back is not None:
            self._log.warning(event, held_back=held_back, **fields)

    def _join(self, connection: Connection, worker: WorkerId) -> None:
        connection.worker = worker
        self._speakers[worker] = connection
        if connection.attach is not None:
            self._models[worker.tenant] = connection.attach.models

    def _close(self, connection: Connection) -> None:
        self.ready.pop(connection, None)
        if self._connections.pop(connection.fd, None) is None:
            return
        if not connection.has_ended:
            connection.has_ended = True
            self._watch(connection.fd, 0)
        connection.stream.close()

    def close(self) -> None:
        """Close all connections; nobody can connect any more."""
        self._path.unlink(missing_ok=True)
        self._listener.close()
        for connection in list(self._connections.values()):
            self._close(connection)


def split_results(leases: Items, frame_counts: Items, codes: Items, frames: list[Any]) -> list[ResultFields]:
    """Each answer with the frames that are its own.

    Args:
        leases: of all answers, as `decode_worker_items` gives them.
        frame_counts: of them.
        codes: of them.
        frames: the header of the message, and those of all answers.

    Raises:
        Malformed: the frames are more or fewer than the header says.
    """
    ends = list(accumulate(frame_counts, initial=1))
    if ends[-1] != len(frames):
        raise Malformed(f"the results name {ends[-1] - 1} frames, the message has {len(frames) - 1}")
    own = map(frames.__getitem__, map(slice, ends, ends[1:]))
    return list(zip(leases, codes, own, strict=True))
