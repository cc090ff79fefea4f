"""Where clients offer shared memory: a unix socket of packets beside each tenant's endpoint.

What a descriptor has to be is in `trtd.router.memfds`, who may name what and how much there may be in
`trtd.core.arenas`, when an arena ends in `trtd.router.lifetimes`, what all tenants share in `trtd.router.arena_hub`.
What a request's references mean is left to `trtd.router.places`.

A peer that breaks the rules of the socket is hung up on, and so is one that does not read its answers: the same
tensors travel in frames, so a client loses nothing but speed. Its arenas are withdrawn with its connection.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from trtd.child.doors import Door
from trtd.core.arenas import MAX_ARENAS, Arena, ArenaBook
from trtd.core.ids import TenantName
from trtd.core.places import Places
from trtd.errors import BY_CODE, Malformed, Overloaded, TrtdError
from trtd.router.arena_hub import ArenaHub
from trtd.router.descriptors import ARENAS, OFFERERS
from trtd.router.memfds import Closer, check_memfd, is_memory
from trtd.router.offers import Connection, Packet
from trtd.router.reception import SHARE_OF_ONE_USER
from trtd.wire.arenas import ArenaAccepted, ArenaOffered, ArenaRefused, ArenaWithdrawn, Welcome, decode_packet
from trtd.wire.settings import TenantEndpoint

MAX_CONNECTIONS = 512
"""Most connections of one tenant's clients."""
MAX_STRANGE = 16
"""Descriptors of no memory that one tenant may have waiting to be closed; with more, its clients are hung up on."""


class TenantArenas:
    """The arenas of one tenant: its socket, the connections of its clients, and its accounts.

    Args:
        hub: what all tenants share.
        settings: as the supervisor told them.

    Attributes:
        book: who may name what, and how much there is.
    """

    def __init__(self, hub: ArenaHub, settings: TenantEndpoint) -> None:
        self.book = ArenaBook(settings.max_arena_bytes)
        self._hub = hub
        self._tenant = TenantName(settings.tenant)
        self._path = settings.arenas_path
        self._door: Door | None = None
        self._is_reported = False
        self._connections: dict[int, Connection] = {}
        self._places = Places(MAX_CONNECTIONS, MAX_CONNECTIONS)
        self._strange = Closer()
        self.open()

    def configure(self, settings: TenantEndpoint) -> None:
        """Obey new settings. Whoever may not use the tenant any more loses its arenas, and all do where it takes none.

        A smaller limit than what is there ends nothing: it holds for what is offered from now on.
        """
        self.book.max_bytes = settings.max_arena_bytes
        if settings.arenas_path != self._path:
            self._stop_listening()
            self._path = settings.arenas_path
        for connection in list(self._connections.values()):
            if not settings.max_arena_bytes or not self._hub.access.admits(self._tenant, connection.peer):
                self._hang_up(connection)
        self.open()

    def open(self) -> None:
        """Listen, if that is not so already."""
        if self._door is not None or not self._path:
            return
        door = Door(Path(self._path), self._hub.socket_mode, socket.SOCK_SEQPACKET)
        self._door = door if self._bind(door) else None

    def look_after(self) -> None:
        """Listen again where the socket was lost or could not be opened, or there was no descriptor for a peer."""
        self.open()
        door = self._door
        if door is None:
            return
        if not door.is_in_place():
            if door.is_open:
                self._hub.report("arenas.socket_lost", self._tenant, path=self._path)
                self._hub.poller.unwatch(door.fileno())
            self._bind(door)
        elif not self._hub.poller.is_watched(door.fileno()):
            self._hub.poller.watch(door.fileno(), self._accept)

    def _bind(self, door: Door) -> bool:
        try:
            door.open()
        except OSError as error:
            if not self._is_reported:
                self._is_reported = True
                self._hub.report("arenas.open_failed", self._tenant, path=self._path, cause=str(error))
            return False
        self._is_reported = False
        self._hub.poller.watch(door.fileno(), self._accept)
        return True

    def _accept(self) -> None:
        door = self._door
        if door is None:
            return
        try:
            sock = door.accept()
        except OSError as error:
            # There is no descriptor left. The connection waits, and would be reported again at once.
            self._hub.poller.unwatch(door.fileno())
            self._hub.report("arenas.accept_failed", self._tenant, cause=str(error))
            return
        if sock is None:
            return
        connection = Connection(sock)
        problem = self._why_not(connection)
        if problem is not None:
            connection.close()
            self._hub.report("arenas.peer_refused", self._tenant, cause=problem, peer=str(connection.peer))
            return
        self._connections[connection.fd] = connection
        self._hub.poller.watch(connection.fd, lambda: self._hear(connection))
        self._send(connection, Welcome(self.book.max_bytes, self._hub.has_bundles))

    def _why_not(self, connection: Connection) -> str | None:
        if not self._hub.access.admits(self._tenant, connection.peer):
            return "not allowed"
        if connection.fd > self._hub.descriptors.max_fd:
            return "no descriptors to spare"
        places = self._places
        places.most = self._hub.descriptors.share(MAX_CONNECTIONS, OFFERERS)
        part, whole = SHARE_OF_ONE_USER
        places.most_each = max(1, places.most * part // whole)
        return places.take(connection.peer.uid)

    def _hear(self, connection: Connection) -> None:
        """Handle one packet, or the end of a connection."""
        if self._strange.waiting >= MAX_STRANGE:
            self._break(connection, "descriptors of this tenant's clients cannot be closed")
            return
        try:
            packet = connection.receive()
        except OSError:
            self._hang_up(connection)
            return
        if packet is None:
            return
        is_kept = False
        try:
            if packet.data:
                is_kept = self._take(connection, packet)
            else:
                self._hang_up(connection)
        except Exception as error:
            # Whatever it was, it ends with this client.
            self._break(connection, error.message if isinstance(error, TrtdError) else repr(error))
        finally:
            if packet.fd is not None and not is_kept:
                self._discard(packet.fd)

    def _take(self, connection: Connection, packet: Packet) -> bool:
        """Handle a packet; whether its descriptor became an arena's.

        Raises:
            TrtdError: nothing that a client may send.
        """
        if not packet.is_whole:
            raise Malformed("the packet is too long")
        message = decode_packet(packet.data)
        if isinstance(message, ArenaOffered):
            return self._answer_offer(connection, message, packet)
        if not isinstance(message, ArenaWithdrawn) or packet.fd is not None or packet.has_lost:
            raise Malformed(f"a client does not send {type(message).__name__}, or sends no descriptor with it")
        # Of a key that is not this connection's own nothing is said: there may be such an arena, or not.
        if message.key in connection.keys:
            connection.keys.remove(message.key)
            self.book.withdraw(message.key)
        return False

    def _answer_offer(self, connection: Connection, offer: ArenaOffered, packet: Packet) -> bool:
        try:
            key = self._admit(connection, offer, packet)
        except TrtdError as problem:
            self._hub.report("arena.refused", self._tenant, code=problem.code, cause=problem.message)
            self._send(connection, ArenaRefused(offer.number, problem.code, problem.message))
            return False
        self._send(connection, ArenaAccepted(offer.number, key))
        return True

    def _admit(self, connection: Connection, offer: ArenaOffered, packet: Packet) -> int:
        """Enter an arena; its key.

        Raises:
            TrtdError: it cannot enter.
        """
        if packet.fd is None:
            if packet.has_lost:
                raise Overloaded("the router has no descriptor left")
            raise Malformed("no descriptor came with the offer")
        if packet.has_lost:
            raise Malformed("more than one descriptor came with the offer")
        check_memfd(packet.fd, offer.size_bytes)
        if packet.fd > self._hub.descriptors.max_fd:
            raise Overloaded("the router has no descriptors to spare")
        # What has ended and was not carried out yet would be counted against the client that comes right after it.
        self._hub.lifetimes.sweep()
        self.book.max_count = self._hub.descriptors.share(MAX_ARENAS, ARENAS)
        refusal = self.book.judge(offer.size_bytes, len(connection.keys))
        if refusal is not None:
            raise BY_CODE[refusal.code](refusal.message)
        key = fresh_key()
        while key in self.book:
            key = fresh_key()
        arena = Arena(key, offer.size_bytes, connection.peer.process, packet.fd)
        self._hub.lifetimes.follow(arena, self.book)
        self.book.add(arena)
        connection.keys.add(key)
        return key

    def _send(self, connection: Connection, packet: Welcome | ArenaAccepted | ArenaRefused) -> None:
        try:
            connection.send(packet)
        except OSError:
            self._hang_up(connection)

    def _discard(self, fd: int) -> None:
        if is_memory(fd):
            self._hub.lifetimes.close_soon(fd)
        else:
            self._strange.take(fd)

    def _break(self, connection: Connection, cause: str) -> None:
        self._hub.report("arenas.connection_broken", self._tenant, cause=cause, peer=str(connection.peer))
        self._hang_up(connection)

    def _hang_up(self, connection: Connection) -> None:
        """End a connection; its arenas are withdrawn."""
        if self._connections.pop(connection.fd, None) is None:
            return
        self._hub.poller.unwatch(connection.fd)
        self._places.leave(connection.peer.uid)
        for key in connection.keys:
            self.book.withdraw(key)
        connection.close()

    def _stop_listening(self) -> None:
        if self._door is None:
            return
        self._hub.poller.unwatch(self._door.fileno())
        self._door.close()
        self._door = None

    def close(self) -> None:
        """Take nothing more, and end every connection. Arenas that requests still hold end with these."""
        self._stop_listening()
        for connection in list(self._connections.values()):
            self._hang_up(connection)
        self._strange.stop()


def fresh_key() -> int:
    """A key that nobody can guess: 63 random bits."""
    return int.from_bytes(os.urandom(8)) >> 1
