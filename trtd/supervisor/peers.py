"""Who is at the other end of the operators' socket, as the kernel says, and what that one may do."""

from __future__ import annotations

import array
import ctypes
import socket
import struct
from dataclasses import dataclass

from trtd.wire.operator import Role

SO_PEERGROUPS = 59
"""Linux: the supplementary groups that the peer had when it connected; the socket module has no name for it."""

GROUPS_BYTES = 4 * 65_536
"""Those of as many groups as Linux lets a process have; Python's own getsockopt reads 256 of them."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as it was at that moment."""

    pid: int
    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Roles:
    """Who may do what, in numbers.

    Attributes:
        own_uid: the daemon's user, who may do everything, as root may.
        operator_uids: users who are operators.
        operator_gids: groups whose members are operators.
        viewer_uids: users who may look.
        viewer_gids: groups whose members may look.
    """

    own_uid: int
    operator_uids: frozenset[int] = frozenset()
    operator_gids: frozenset[int] = frozenset()
    viewer_uids: frozenset[int] = frozenset()
    viewer_gids: frozenset[int] = frozenset()

    def role_of(self, peer: Peer) -> Role | None:
        """The highest role of a peer; None for a stranger."""
        if peer.uid in {0, self.own_uid} or peer.uid in self.operator_uids or peer.gids & self.operator_gids:
            return Role.OPERATOR
        if peer.uid in self.viewer_uids or peer.gids & self.viewer_gids:
            return Role.VIEWER
        return None


def peer_of(sock: socket.socket) -> Peer:
    """The peer of a connected unix socket.

    Raises:
        OSError: it is no unix socket, or not connected.
    """
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return Peer(pid, uid, frozenset({gid, *_supplementary_groups(sock)}))


def _supplementary_groups(sock: socket.socket) -> list[int]:
    """The kernel knows them; a database of accounts would be asked over the network, and the loop waits for nobody."""
    groups = ctypes.create_string_buffer(GROUPS_BYTES)
    size = ctypes.c_uint32(GROUPS_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(sock.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS, groups, ctypes.byref(size)) != 0:
        # A kernel older than 4.13: his main group has to do.
        return []
    return array.array("I", groups.raw[: size.value]).tolist()
