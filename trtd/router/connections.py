"""The connections of workers as streams of messages: accepted, read and written without waiting, closed.

What the messages say, and which connection speaks for which worker, is decided in `trtd.router.workers`.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trtd.child.doors import Door
from trtd.child.stream import Stream, StreamClosed, peer_of
from trtd.core.ids import TenantName, WorkerId
from trtd.errors import Malformed
from trtd.observe import Logger, RateLimit
from trtd.router.descriptors import most_workers
from trtd.wire.batches import max_results_bytes
from trtd.wire.messages import Attach

MAX_CONNECTIONS = 4096
"""Connections of processes of the daemon's own user, named by the supervisor or not."""
MAX_ACCEPTED = 16
"""Connections taken in one turn of the loop."""
SOCKET_MODE = 0o600

READABLE = select.EPOLLIN
GONE = select.EPOLLRDHUP
LARGE_BYTES = 1024 * 1024
"""Of messages up to this size nobody asks whether there is room."""
ROOM_S = 10.0
"""How long a very large answer may wait in its worker for clients that read others. Then it is who does not read that
gives way."""

HasRoom = Callable[[TenantName, int, int], bool]


class Claim(NamedTuple):
    """Who a process says it is: the life of a worker, and the pid that the kernel knows."""

    worker: WorkerId
    pid: int


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
        defect: why nothing more can be read from it, where that is so.
        waits_until: until when a very large message of it may be left unread; None while that is not so.
    """

    __slots__ = ("arenas", "attach", "defect", "fd", "has_ended", "pid", "stream", "waits_until", "worker")

    def __init__(self, stream: Stream, pid: int) -> None:
        self.stream = stream
        self.fd = stream.fileno()
        self.pid = pid
        self.attach: Attach | None = None
        self.worker: WorkerId | None = None
        self.arenas: set[int] = set()
        self.has_ended = False
        self.defect = ""
        self.waits_until: float | None = None

    @property
    def claim(self) -> Claim | None:
        """Who it says it is."""
        attach = self.attach
        if attach is None:
            return None
        return Claim(WorkerId(TenantName(attach.tenant), attach.replica, attach.generation), self.pid)


class Connections:
    """All of them.

    Args:
        path: of the unix socket at which workers connect.
        watch: called with a descriptor and the epoll events that are wanted of it, 0 before it is closed.
        log: for connections that are refused or end in an error.
        has_room: asked with a tenant, the bytes of a large message of its worker, and those of others that are being
            read: whether it may be read now, or rather once its clients have read.

    Attributes:
        ready: those from which a message may be received, or whose end is to be noticed.
        waiting: those that are not read at the moment, for want of room.

    Raises:
        OSError: the path cannot be had.
    """

    def __init__(self, path: str, watch: Callable[[int, int], None], log: Logger, has_room: HasRoom) -> None:
        self._watch = watch
        self._has_room = has_room
        self.waiting: set[Connection] = set()
        self._log = log
        self._limit = RateLimit(1.0)
        self._own_uid = os.geteuid()
        self._door = Door(Path(path), SOCKET_MODE)
        self._door.open()
        self._most = most_workers(MAX_CONNECTIONS)
        self._is_paused = False
        self._is_reported = False
        self._by_fd: dict[int, Connection] = {}
        self.ready: dict[Connection, None] = {}
        watch(self._door.fileno(), READABLE)

    def all(self) -> Iterable[Connection]:
        """Every connection; a copy, so that some may be closed meanwhile."""
        return list(self._by_fd.values())

    def heed(self, fd: int, events: int) -> bool:
        """A descriptor is ready for something; False when it is none of the workers'."""
        connection = self._by_fd.get(fd)
        if connection is None:
            if fd != self._door.fileno():
                return False
            self._accept()
            return True
        if events & select.EPOLLOUT:
            self._flush(connection)
        # As long as messages wait that were read before, more of them would only pile up here.
        if events & ~select.EPOLLOUT and not connection.has_ended and connection not in self.ready:
            # Of one that waits, only its end is told.
            self._go_on(connection)
            self._fill(connection)
        return True

    def retry(self, now: float) -> None:
        """Read on where there is room by now, or that was waited for long enough."""
        for connection in list(self.waiting):
            if not self._must_wait(connection, now):
                self._go_on(connection)

    def _must_wait(self, connection: Connection, now: float) -> bool:
        """Whether the message that has begun is so large that it is better left where it is."""
        worker = connection.worker
        size = connection.stream.next_bytes() if worker is not None else 0
        if not size or worker is None:
            return False
        begun_bytes = sum(
            other.stream.begun_bytes() + other.stream.next_bytes()
            for other in self._by_fd.values()
            if other.worker is not None
            and other.worker.tenant == worker.tenant
            and other is not connection
            and other not in self.waiting
        )
        if self._has_room(worker.tenant, size, begun_bytes):
            return False
        if connection.waits_until is None:
            connection.waits_until = now + ROOM_S
        return now < connection.waits_until

    def _go_on(self, connection: Connection) -> None:
        if connection in self.waiting:
            self.waiting.discard(connection)
            self._watch_for_input(connection)

    def _watch_for_input(self, connection: Connection) -> None:
        wanted = GONE if connection in self.waiting else READABLE
        self._watch(connection.fd, wanted | select.EPOLLOUT if connection.stream.has_output else wanted)

    def send(self, connection: Connection, frames: Sequence[Any], fds: Sequence[int] = ()) -> None:
        """Send one message, with descriptors beside it; a connection that turns out to be gone ends."""
        try:
            connection.stream.send(frames, fds)
        except StreamClosed:
            self.end(connection)
        else:
            if connection.stream.has_output:
                self._watch_for_input(connection)

    def end(self, connection: Connection) -> None:
        """The peer is gone; what it said before is still to be read."""
        self.waiting.discard(connection)
        if not connection.has_ended:
            connection.has_ended = True
            self._watch(connection.fd, 0)
        self.ready[connection] = None

    def drop(self, connection: Connection) -> None:
        """Close a connection and forget it, whatever it said."""
        self.ready.pop(connection, None)
        self.waiting.discard(connection)
        if self._by_fd.pop(connection.fd, None) is None:
            return
        if not connection.has_ended:
            connection.has_ended = True
            self._watch(connection.fd, 0)
        connection.stream.close()

    def report(self, event: str, **fields: object) -> None:
        """Log what strangers can make happen, without letting it fill the log."""
        held_back = self._limit.take(event, time.monotonic())
        if held_back is not None:
            self._log.warning(event, held_back=held_back, **fields)

    def _accept(self) -> None:
        for _ in range(MAX_ACCEPTED):
            try:
                sock = self._door.accept()
            except OSError as error:
                # The connection waits, and would wake us again at once.
                self._pause()
                self.report("worker.accept_failed", cause=str(error))
                return
            if sock is None:
                return
            pid, uid, _ = peer_of(sock)
            if uid != self._own_uid or len(self._by_fd) >= self._most:
                self.report("peer.refused", endpoint=str(self._door.path), address=f"uid {uid}, pid {pid}")
                sock.close()
                continue
            connection = Connection(Stream(sock), pid)
            # Before it is known whose it is, it says who it is, and what it was asked by a former router.
            connection.stream.max_message_bytes = max_results_bytes(0)
            self._by_fd[connection.fd] = connection
            self._watch(connection.fd, READABLE)

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._watch(self._door.fileno(), 0)

    def look_after(self) -> None:
        """Listen again where the socket was taken away, or there was no descriptor for a connection."""
        if self._door.is_in_place():
            if self._is_paused:
                self._is_paused = False
                self._watch(self._door.fileno(), READABLE)
            return
        if self._door.is_open:
            self._log.warning("worker.socket_lost", path=str(self._door.path))
            self._pause()
        try:
            self._door.open()
        except OSError as error:
            if not self._is_reported:
                self._is_reported = True
                self._log.error("worker.socket_open_failed", path=str(self._door.path), cause=str(error))
            return
        self._is_paused = self._is_reported = False
        self._watch(self._door.fileno(), READABLE)
        self._log.warning("worker.socket_reopened", path=str(self._door.path))

    def _fill(self, connection: Connection) -> None:
        try:
            connection.stream.fill()
            if connection.stream.next_bytes() > LARGE_BYTES and self._must_wait(connection, time.monotonic()):
                self.waiting.add(connection)
                self._watch_for_input(connection)
            else:
                connection.waits_until = None
        except StreamClosed:
            self.end(connection)
        except Malformed as error:
            connection.defect = error.message
            self.end(connection)
        else:
            self.ready[connection] = None

    def _flush(self, connection: Connection) -> None:
        try:
            connection.stream.flush()
        except StreamClosed:
            self.end(connection)
        else:
            if not connection.stream.has_output:
                self._watch_for_input(connection)

    def close(self) -> None:
        """Close all connections; nobody can connect any more."""
        if self._door.is_open and not self._is_paused:
            self._watch(self._door.fileno(), 0)
        self._door.close()
        for connection in self.all():
            self.drop(connection)
