"""A tenant's endpoint on a unix socket: who connects is looked at before anything is read, and taken in or sent away.

libzmq would accept whoever comes, until the process has no descriptor left, and then abort it. So the router accepts
by itself. A peer that may not use the tenant, or for which there is no place, is told so in ZeroMQ's own words and
closed at once. What is read and written on a connection is in `trtd.router.guests`.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from trtd.child.doors import Door
from trtd.child.stream import peer_of
from trtd.core.ids import TenantName
from trtd.core.places import Places
from trtd.errors import InvalidConfig
from trtd.observe import Logger, RateLimit
from trtd.router.access import Access, Peer
from trtd.router.backlog import Unfinished, Unread
from trtd.router.callers import Caller, Route
from trtd.router.descriptors import GUESTS, Descriptors
from trtd.router.guests import Broken, Guest, Received
from trtd.router.poller import READABLE, WRITABLE, Poller
from trtd.router.sockets import HANDSHAKE_TIMEOUT_MS
from trtd.wire import zmtp

NOT_ALLOWED = zmtp.GREETING + zmtp.refusal(b"400")
TOO_MANY = zmtp.GREETING + zmtp.refusal(b"300")
"""What a peer is told that is sent away: it may not come, or not now."""
HANDSHAKE_S = HANDSHAKE_TIMEOUT_MS / 1000
SHARE_OF_ONE_USER = 3, 4
"""Part of a tenant's places that one user may hold, so that there are some for the others."""
GONE = select.EPOLLRDHUP
MAX_POLLED = 64
READS_PER_POLL = 16
"""Messages after which is asked who else has some."""
MAX_FILLS = 4
"""Reads without a message in one go, so that a long one takes no more than its turns."""
SNDBUF_BYTES = 1024 * 1024
"""What the kernel is asked to hold for a client; it grants what its own limit allows."""


class Reception:
    """What all unix endpoints share.

    Args:
        access: says who may use a tenant.
        poller: serves the doors, and clients that read slowly.
        descriptors: how many connections a tenant may have.
        clock: monotonic seconds.
        log: for peers that are sent away.

    Attributes:
        leaving: connections of closed endpoints that still have answers to read, and until when they may.
    """

    def __init__(
        self,
        access: Access,
        poller: Poller,
        descriptors: Descriptors,
        clock: Callable[[], float],
        log: Logger,
    ) -> None:
        self.access = access
        self.poller = poller
        self.descriptors = descriptors
        self.clock = clock
        self.leaving: dict[Guest, float] = {}
        self._log = log
        self._limit = RateLimit(1.0)

    def report(self, event: str, tenant: TenantName, **fields: object) -> None:
        """Log what a peer did, without letting it fill the log."""
        held_back = self._limit.take(f"{event} {tenant}", self.clock())
        if held_back is not None:
            self._log.warning(event, tenant=tenant, held_back=held_back, **fields)

    def let_go(self, guest: Guest, linger_s: float) -> None:
        """Close a connection once its answers are out, or time is up."""
        self.poller.unwatch(guest.fd)
        if not linger_s or not guest.is_awaited:
            guest.close()
            return
        self.leaving[guest] = self.clock() + linger_s
        if guest.has_output:
            self.poller.watch(guest.fd, lambda: self._flush(guest), WRITABLE)

    def _flush(self, guest: Guest) -> None:
        try:
            guest.flush()
        except Broken:
            self._end(guest)
            return
        if not guest.has_output:
            self.poller.unwatch(guest.fd)

    def _end(self, guest: Guest) -> None:
        del self.leaving[guest]
        self.poller.unwatch(guest.fd)
        guest.close()

    def expire(self, now: float) -> None:
        """End those that have all they were told, or had their time for it."""
        for guest in [guest for guest, until in self.leaving.items() if until <= now or not guest.is_awaited]:
            self._end(guest)

    def close(self) -> None:
        """Wait until all have left, or their time is up."""
        while self.leaving:
            self.expire(self.clock())
            # What a peer has read of what the kernel holds is told by no event.
            if select.select((self.poller.fd,), (), (), 0.01)[0]:
                self.poller.serve()


class LocalPort:
    """One endpoint on a unix socket, in place of a `trtd.router.sockets.Port`.

    Args:
        reception: what all share.
        tenant: whose.
        max_frame_bytes: a peer that sends a longer frame is disconnected.
        max_request_bytes: a longer message is not taken.
        max_connections: most connections at a time.
        unread: where is counted what the tenant's clients have not read.

    Attributes:
        fd: readable when `read` may get something.
        address: where it listens.
        is_closed: whether `close` was called.
        refused: peers that were sent away.
        problem: why it does not listen where it was lost; empty while it does.
    """

    def __init__(
        self,
        reception: Reception,
        tenant: TenantName,
        max_frame_bytes: int,
        max_request_bytes: int,
        max_connections: int,
        unread: Unread,
    ) -> None:
        self._reception = reception
        self._tenant = tenant
        self._max_frame_bytes = max_frame_bytes
        self._max_request_bytes = max_request_bytes
        self._max_connections = max_connections
        self._epoll = select.epoll()
        self.fd = self._epoll.fileno()
        self.address = ""
        self.is_closed = False
        self.refused = 0
        self._door = Door(Path(), 0)
        self.problem = ""
        self._guests: dict[int, Guest] = {}
        self._greeting: dict[Guest, float] = {}
        self._places = Places(0, 0)
        self._ready: deque[Guest] = deque()
        self._reads = 0
        self._unread = unread
        self._unfinished = Unfinished(max_request_bytes)
        self._held_back: set[Guest] = set()

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._guests)

    # The door

    def bind(self, address: str, mode: int, listener_fd: int | None = None) -> None:
        """Listen at an `ipc://` address; `mode` is for its socket file.

        With `listener_fd`, which listens there already, a copy of it is used, and its socket file is left to its owner.

        Raises:
            OSError: the address cannot be had.
            InvalidConfig: the address is of another kind.
        """
        if not address.startswith("ipc:///"):
            raise InvalidConfig(f"address {address!r} is not ipc:// with an absolute path")
        self.address = address
        path = Path(address.removeprefix("ipc://"))
        self._door = Door(path, mode) if listener_fd is None else Door.lent(path, mode, listener_fd)
        if not self._door.is_open:
            self._door.open()
        self._watch_door()

    def _watch_door(self) -> None:
        self._reception.poller.watch(self._door.fileno(), self._accept, READABLE)

    def look_after(self, now: float) -> None:
        """Send away who does not come to the point, and see that others can come. To be called about once a second."""
        for guest, until in list(self._greeting.items()):
            if guest.is_welcome:
                del self._greeting[guest]
            elif until <= now:
                self._drop(guest)
        reception = self._reception
        stalled = self._unfinished.find_stalled()
        if stalled is not None:
            reception.report("peer.dropped", self._tenant, cause="its message does not go on", uid=stalled.uid)
            self._drop(stalled)
        if self._door.is_in_place():
            if not reception.poller.is_watched(self._door.fileno()):
                self._watch_door()
            return
        if self._door.is_open:
            reception.report("endpoint.socket_lost", self._tenant, address=self.address)
            reception.poller.unwatch(self._door.fileno())
        try:
            self._door.open()
        except OSError as error:
            if not self.problem:
                reception.report("endpoint.open_failed", self._tenant, address=self.address, cause=str(error))
            self.problem = f"{self.address} is lost: {error}"
            return
        self.problem = ""
        self._watch_door()
        reception.report("endpoint.reopened", self._tenant, address=self.address)

    def _accept(self) -> None:
        try:
            sock = self._door.accept()
        except OSError as error:
            # There is no descriptor. The connection waits, and would wake us again at once.
            self._reception.poller.unwatch(self._door.fileno())
            self._reception.report("endpoint.accept_failed", self._tenant, cause=str(error))
            return
        if sock is not None:
            self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        reception = self._reception
        try:
            pid, uid, gid = peer_of(sock)
        except OSError:
            sock.close()
            return
        peer = Peer(uid, gid, pid)
        owner = reception.access.admit_local(self._tenant, peer)
        if owner is None:
            self._send_away(sock, NOT_ALLOWED, "not allowed", peer)
            return
        problem = "no descriptors to spare" if sock.fileno() > reception.descriptors.max_fd else self._take_place(uid)
        if problem is not None:
            self._send_away(sock, TOO_MANY, problem, peer)
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SNDBUF_BYTES)
        caller = Caller(Route(self, b""), owner, f"localhost:{uid}:{gid}:{pid}")
        guest = Guest(sock, caller, uid, self._max_frame_bytes, self._max_request_bytes, self._unread)
        caller.route = Route(self, guest)
        self._guests[guest.fd] = guest
        self._greeting[guest] = reception.clock() + HANDSHAKE_S
        self._epoll.register(guest.fd, READABLE)
        guest.greet()

    def _take_place(self, uid: int) -> str | None:
        places = self._places
        places.most = self._reception.descriptors.share(self._max_connections, GUESTS)
        part, whole = SHARE_OF_ONE_USER
        places.most_each = max(1, places.most * part // whole)
        return places.take(uid)

    def _send_away(self, sock: socket.socket, words: bytes, cause: str, peer: Peer) -> None:
        self.refused += 1
        with sock, contextlib.suppress(OSError):
            sock.send(words, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        self._reception.report("peer.refused", self._tenant, cause=cause, uid=peer.uid, gid=peer.gid, pid=peer.pid)

    # In

    def has_input(self) -> bool:
        """Whether a message may wait that was not asked for yet; of others the poller tells."""
        return bool(self._ready)

    def read(self) -> Received | int | None:
        """The next message, None when there is none, or the number of frames read off that belong to none."""
        ready, unfinished = self._ready, self._unfinished
        fills = 0
        if self._reads >= READS_PER_POLL or not ready:
            self._poll()
        while ready:
            guest = ready[0]
            if guest.is_gone:
                ready.popleft()
                continue
            try:
                received = guest.receive()
                if guest.has_output:
                    self._flush_later(guest)
                if received is None:
                    unfinished.note(guest)
                    if not guest.is_readable:
                        ready.popleft()
                        continue
                    if not unfinished.may_go_on(guest):
                        ready.popleft()
                        self._hold_back(guest)
                        continue
                    if fills == MAX_FILLS:
                        ready.rotate(-1)
                        return 1
                    fills += 1
                    guest.is_readable = guest.fill()
                    continue
            except Broken:
                ready.popleft()
                self._drop(guest)
                continue
            self._reads += 1
            if unfinished:
                unfinished.forget(guest)
                if self._held_back:
                    self._let_go_on()
            if guest.is_readable or guest.has_unread:
                ready.rotate(-1)
            else:
                ready.popleft()
            return received
        return None

    def _poll(self) -> None:
        self._reads = 0
        ready, guests = self._ready, self._guests
        listed = set(ready) if ready else ready
        for fd, _ in self._epoll.poll(0, MAX_POLLED):
            guest = guests[fd]
            if guest in self._held_back:
                # Only its end is told of.
                self._drop(guest)
                continue
            guest.is_readable = True
            if guest not in listed:
                ready.append(guest)

    def _hold_back(self, guest: Guest) -> None:
        """Read nothing more of a guest until others are through."""
        guest.is_readable = False
        self._held_back.add(guest)
        self._epoll.modify(guest.fd, GONE)

    def _let_go_on(self) -> None:
        """Read on where that was held back, as far as there is room now."""
        for guest in [guest for guest in self._held_back if self._unfinished.may_go_on(guest)]:
            self._held_back.discard(guest)
            self._epoll.modify(guest.fd, READABLE)

    def _drop(self, guest: Guest) -> None:
        if self._guests.pop(guest.fd, None) is None:
            return
        self._held_back.discard(guest)
        self._unfinished.forget(guest)
        self._greeting.pop(guest, None)
        self._places.leave(guest.uid)
        self._epoll.unregister(guest.fd)
        self._reception.let_go(guest, 0.0)
        if self._held_back:
            self._let_go_on()

    # Out

    def send(self, guest: Guest, frames: Sequence[Any], answers: int = 1) -> None:
        """Hand a message with so many answers in it to a connection.

        Raises:
            Undelivered: it was not taken, no frame of it.
        """
        guest.send(frames, answers)
        if guest.has_output:
            self._flush_later(guest)

    def guests(self) -> Collection[Guest]:
        """All connections."""
        return self._guests.values()

    def give_up(self, guest: Guest) -> None:
        """End a connection whose peer reads too slowly, and give up the answers that it has not read."""
        self._reception.report("peer.dropped", self._tenant, cause="it does not read its answers", uid=guest.uid)
        self._drop(guest)

    def _flush_later(self, guest: Guest) -> None:
        poller = self._reception.poller
        if not poller.is_watched(guest.fd):
            poller.watch(guest.fd, lambda: self._flush(guest), WRITABLE)

    def _flush(self, guest: Guest) -> None:
        try:
            guest.flush()
        except Broken:
            # Its end is read like that of others; nothing more can be written.
            self._reception.poller.unwatch(guest.fd)
            return
        if not guest.has_output:
            self._reception.poller.unwatch(guest.fd)

    def close(self, linger_s: float = 0.0) -> None:
        """Stop listening at once; answers that clients have not read get `linger_s` to leave. Repeatable."""
        if self.is_closed:
            return
        self.is_closed = True
        self._reception.poller.unwatch(self._door.fileno())
        self._door.close()
        for guest in self._guests.values():
            self._epoll.unregister(guest.fd)
            self._reception.let_go(guest, linger_s)
        self._guests.clear()
        self._ready.clear()
        self._greeting.clear()
        self._epoll.close()
