"""Which connection speaks for which worker: requests out, results in.

A worker is known to the router when two words agree: the supervisor's (`WorkerAdmitted`: this life, this pid) and its
own (`Attach`, on a connection whose pid the kernel checked). Either may come first.
The connections themselves are kept in `trtd.router.connections`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from itertools import accumulate
from typing import Any, NamedTuple

from trtd.core.ids import TenantName, WorkerId
from trtd.core.requests import Dispatch, ResultFields
from trtd.errors import Malformed, TrtdError
from trtd.observe import Logger
from trtd.router.connections import Claim, Connection, Connections, HasRoom
from trtd.router.places import without_area
from trtd.wire.batches import (
    MAX_ATTACH_BYTES,
    Items,
    decode_worker_items,
    encode_arena_message,
    encode_batch_items,
    max_results_bytes,
)
from trtd.wire.messages import ArenaClosed, ArenaOpened, ModelDescription
from trtd.wire.settings import DEFAULT_MAX_ANSWER_BYTES


class News(Enum):
    """What a worker's connection brought."""

    ATTACHED = "it is ready for work, or again"
    ANSWERED = "it has results"
    LOST = "its connection is gone"
    MISBEHAVED = "it sent what cannot be read, and is not heard any more in this life"


class Arrived(NamedTuple):
    """News of one worker; results are empty unless it answered, the reason unless it misbehaved."""

    worker: WorkerId
    news: News
    results: Sequence[ResultFields]
    reason: str = ""


class Workers:
    """All connections of workers. The decisions about work are the dispatcher's.

    Args:
        path: of the unix socket at which workers connect.
        watch: called with a descriptor and the epoll events that are wanted of it, 0 before it is closed.
        log: for connections that are refused or end in an error.
        has_room: see `trtd.router.connections.Connections`.

    Attributes:
        heed: to be called with a descriptor and its events, see `trtd.router.connections.Connections.heed`.
        ready: connections from which `read` may get something.
        look_after: to be called about once a second.
        waiting: connections that are not read for want of room.
        retry: to be called now and then while there are such.

    Raises:
        OSError: the path cannot be had.
    """

    def __init__(self, path: str, watch: Callable[[int, int], None], log: Logger, has_room: HasRoom) -> None:
        self._connections = Connections(path, watch, log, has_room)
        self.waiting = self._connections.waiting
        self.retry = self._connections.retry
        self.heed = self._connections.heed
        self.ready = self._connections.ready
        self.look_after = self._connections.look_after
        self._send = self._connections.send
        self._pids: dict[WorkerId, int] = {}
        self._answer_bytes: dict[WorkerId, int] = {}
        self._speakers: dict[WorkerId, Connection] = {}
        self._models: dict[TenantName, tuple[ModelDescription, ...]] = {}

    def has_any(self, tenant: TenantName) -> bool:
        """Whether a worker of the tenant can be reached."""
        return any(worker.tenant == tenant for worker in self._speakers)

    def models(self, tenant: TenantName) -> tuple[ModelDescription, ...]:
        """What the tenant's worker that came last serves; also while there is none at the moment."""
        return self._models.get(tenant, ())

    # What the supervisor says

    def admit(self, worker: WorkerId, pid: int, max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES) -> bool:
        """The supervisor named a worker, and how large it may answer; True when it has attached already."""
        self._pids[worker] = pid
        self._answer_bytes[worker] = max_answer_bytes
        if worker in self._speakers:
            return True
        claim = Claim(worker, pid)
        for connection in self._connections.all():
            if connection.worker is None and connection.claim == claim:
                self._join(connection, worker)
                return True
        return False

    def forget(self, worker: WorkerId) -> None:
        """This life of the worker is over."""
        self._pids.pop(worker, None)
        self._answer_bytes.pop(worker, None)
        self.hang_up(worker)

    def hang_up(self, worker: WorkerId) -> None:
        """Close the worker's connection, and hear nothing more of what it had to say there. It may connect again."""
        connection = self._speakers.pop(worker, None)
        if connection is not None:
            self._connections.drop(connection)

    def forget_tenant(self, tenant: TenantName) -> None:
        """The tenant is gone for good."""
        for worker in [worker for worker in self._pids if worker.tenant == tenant]:
            self.forget(worker)
        self._models.pop(tenant, None)

    def close_arena(self, key: int) -> None:
        """No request names the arena any more: tell those who know it."""
        header = encode_arena_message(ArenaClosed(key))
        for connection in self._connections.all():
            if key in connection.arenas:
                connection.arenas.discard(key)
                self._send(connection, [header])

    # Reading

    def read(self) -> Arrived | None:
        """Take one message of one that is `ready`, or notice its end; None where that does not concern the dispatcher.

        Each connection has its turn, however much another one has to say.
        """
        connection = next(iter(self.ready))
        del self.ready[connection]
        try:
            frames = connection.stream.receive()
            if frames is None:
                return self._lose(connection) if connection.has_ended else None
            if connection.stream.unread_bytes or connection.has_ended:
                self.ready[connection] = None
            return self._take(connection, frames)
        except TrtdError as error:
            connection.defect = error.message
            return self._lose(connection)

    def _take(self, connection: Connection, frames: list[memoryview]) -> Arrived | None:
        """What one message means; None where it does not concern the dispatcher (yet).

        Raises:
            TrtdError: it cannot be read.
        """
        if not frames or len(frames[0]) > MAX_ATTACH_BYTES:
            raise Malformed("a worker's message has no header, or too long a one")
        message = decode_worker_items(frames[0])
        if not isinstance(message, tuple):
            if connection.attach is not None:
                raise Malformed("a worker says once on each connection who it is")
            connection.attach = message
            worker = connection.claim[0]  # type: ignore[index]  # it has just attached
            if self._pids.get(worker) != connection.pid:
                return None
            former = self._speakers.pop(worker, None)
            if former is not None and former is not connection:
                former.worker = None
                self._connections.drop(former)
            self._join(connection, worker)
            return Arrived(worker, News.ATTACHED, ())
        generation, leases, frame_counts, codes = message
        speaker = connection.worker
        if speaker is None:
            # What it held was a former router's, whose word on it the supervisor has not repeated yet.
            self._connections.report("worker.results_dropped", pid=connection.pid)
            return None
        if speaker.generation != generation:
            raise Malformed(f"the results are of generation {generation}")
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

    # Connections

    def _join(self, connection: Connection, worker: WorkerId) -> None:
        connection.worker = worker
        connection.stream.max_message_bytes = max_results_bytes(self._answer_bytes[worker])
        self._speakers[worker] = connection
        if connection.attach is not None:
            self._models[worker.tenant] = connection.attach.models

    def _lose(self, connection: Connection) -> Arrived | None:
        """Close a connection that has ended or makes no sense; the news of its worker, where there is one."""
        worker = connection.worker
        self._connections.drop(connection)
        if connection.defect:
            return self._expel(connection)
        if worker is None:
            return None
        del self._speakers[worker]
        return Arrived(worker, News.LOST, ())

    def _expel(self, connection: Connection) -> Arrived | None:
        """Hear nothing more of a worker that makes no sense, in this life: it could go on like that for ever."""
        self._connections.report("worker.message_refused", pid=connection.pid, cause=connection.defect)
        worker = next((worker for worker, pid in self._pids.items() if pid == connection.pid), None)
        if worker is None:
            return None
        self.forget(worker)
        return Arrived(worker, News.MISBEHAVED, (), connection.defect)

    def close(self) -> None:
        """Close all connections; nobody can connect any more."""
        self._connections.close()


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
