"""One connection on which a client offers arenas: packets in, each with at most one descriptor, and packets out.

It never blocks. What a packet means is decided in `trtd.router.arenas`.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from trtd.child.stream import peer_of
from trtd.router.access import Peer
from trtd.wire.arenas import MAX_PACKET_BYTES, ArenaPacket, encode_packet

_INT = struct.Struct("=i")
ROOM_FOR_ONE = socket.CMSG_LEN(_INT.size)
"""Room for one descriptor exactly: the kernel drops all others of a packet before they become ours. CMSG_SPACE, which
is rounded up, has room for two."""
RECEIVE_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC


class Packet(NamedTuple):
    """A packet as it came.

    Attributes:
        data: its bytes; empty when the connection has ended.
        fd: the descriptor beside it, None without one; the receiver has to close it.
        is_whole: whether the bytes are all there.
        has_lost: whether descriptors came that were not taken: more than one, or there was no room for it.
    """

    data: bytes
    fd: int | None
    is_whole: bool
    has_lost: bool


class Connection:
    """A client's connection.

    Args:
        sock: accepted.

    Attributes:
        peer: the process that connected, in the kernel's words.
        keys: of the arenas that it has offered and not withdrawn.
    """

    __slots__ = ("_sock", "keys", "peer")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        pid, uid, gid = peer_of(sock)
        self.peer = Peer(uid, gid, pid)
        self.keys: set[int] = set()

    @property
    def fd(self) -> int:
        """For pollers."""
        return self._sock.fileno()

    def receive(self) -> Packet | None:
        """The next packet, None when there is none.

        Raises:
            OSError: the connection is lost.
        """
        try:
            data, extras, flags, _ = self._sock.recvmsg(MAX_PACKET_BYTES, ROOM_FOR_ONE, RECEIVE_FLAGS)
        except BlockingIOError:
            return None
        fds = [
            _INT.unpack(content)[0]
            for level, kind, content in extras
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(content) == _INT.size
        ]
        has_lost = bool(flags & socket.MSG_CTRUNC)
        return Packet(data, fds[0] if fds else None, not flags & socket.MSG_TRUNC, has_lost)

    def send(self, packet: ArenaPacket) -> None:
        """Send a packet.

        Raises:
            OSError: the client is gone, or does not read.
        """
        self._sock.send(encode_packet(packet), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """End the connection. Descriptors that wait unread in it are the kernel's to close."""
        self._sock.close()
