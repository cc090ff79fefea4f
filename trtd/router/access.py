"""Who may connect, decided when a connection is made: a ZAP handler inside the router's loop.

On ipc the peer is what the kernel says (`localhost:uid:gid:pid`), on tcp its CURVE key. The user id that the handler
gives rides on every message of the connection and is the owner of its requests: `uid:1000` or `key:NAME`. A refused
peer sees the handshake fail. Group memberships come from the user database, looked up here and remembered briefly.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass

import zmq
import zmq.utils.z85

from trtd.observe import Logger, RateLimit
from trtd.wire.settings import TenantEndpoint

ZAP_ADDRESS = "inproc://zeromq.zap.01"
GROUPS_KEPT_S = 5.0
MAX_USERS_KEPT = 1024

ROOT = 0
_VERSION = b"1.0"
_REQUEST_FRAMES = 6
"""Version, request id, domain, address, identity, mechanism; credentials follow."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of an ipc connection, as the kernel knew it when it connected."""

    uid: int
    gid: int
    pid: int

    @property
    def process(self) -> tuple[int, int]:
        """User and pid: one process, or all of the user's that the kernel has no number for here (pid 0).

        These run in other pid namespaces, as the containers of a pod do.
        """
        return self.uid, self.pid


def parse_peer(address: str) -> Peer | None:
    """The peer in libzmq's `localhost:uid:gid:pid`; None for the address of another transport."""
    host, *numbers = address.split(":")
    if host != "localhost" or len(numbers) != 3 or not all(part.isdecimal() for part in numbers):
        return None
    uid, gid, pid = map(int, numbers)
    return Peer(uid, gid, pid)


@dataclass(frozen=True, slots=True)
class AccessList:
    """Who may use one tenant."""

    is_for_everyone: bool
    uids: frozenset[int]
    gids: frozenset[int]
    keys: dict[str, str]
    """Name of the client by its Z85 public key."""

    @classmethod
    def of(cls, endpoint: TenantEndpoint, own_uid: int) -> AccessList:
        """The list of a tenant; the daemon's own user and root always may."""
        return cls(
            endpoint.allow_everyone,
            frozenset({*endpoint.allow_uids, own_uid, ROOT}),
            frozenset(endpoint.allow_gids),
            {client.public_key: client.name for client in endpoint.curve_clients},
        )

    def admits(self, peer: Peer, groups_of: Callable[[Peer], frozenset[int]]) -> bool:
        """Whether a local process may use the tenant; its groups are looked up only when they decide."""
        if self.is_for_everyone or peer.uid in self.uids:
            return True
        if not self.gids:
            return False
        return peer.gid in self.gids or not self.gids.isdisjoint(groups_of(peer))


class GroupLookup:
    """Supplementary groups of users, from the user database, remembered for a few seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[int, tuple[float, frozenset[int]]] = {}

    def __call__(self, peer: Peer) -> frozenset[int]:
        """All groups of the peer's user; its own alone where the database does not know the user."""
        now = self._clock()
        known = self._known.get(peer.uid)
        if known is not None and now - known[0] < GROUPS_KEPT_S:
            return known[1] | {peer.gid}
        try:
            groups = frozenset(os.getgrouplist(pwd.getpwuid(peer.uid).pw_name, peer.gid))
        except (KeyError, OSError):
            groups = frozenset({peer.gid})
        if len(self._known) >= MAX_USERS_KEPT:
            self._known.clear()
        self._known[peer.uid] = (now, groups)
        return groups


class Access:
    """The ZAP handler, and the lists that it obeys.

    A list that becomes shorter also ends connections made before: `is_admitted` is asked for each message.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], clock: Callable[[], float], log: Logger) -> None:
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ZAP_ADDRESS)
        self.fd: int = self._socket.getsockopt(zmq.FD)  # type: ignore[assignment]  # an int for this option
        self._own_uid = os.geteuid()
        self._groups_of = GroupLookup(clock)
        self._lists: dict[str, AccessList] = {}
        # By tenant and owner: the peer, or the key, that was admitted last.
        self._admitted: dict[str, dict[str, Peer | str]] = {}
        self._clock = clock
        self._log = log
        self._limit = RateLimit(1.0)

    def configure(self, endpoint: TenantEndpoint) -> None:
        """Obey a tenant's list from now on."""
        self._lists[endpoint.tenant] = access = AccessList.of(endpoint, self._own_uid)
        self._admitted[endpoint.tenant] = {
            owner: who
            for owner, who in self._admitted.get(endpoint.tenant, {}).items()
            if (f"key:{access.keys.get(who)}" == owner if isinstance(who, str) else access.admits(who, self._groups_of))
        }

    def forget(self, tenant: str) -> None:
        """Admit nobody to the tenant."""
        self._lists.pop(tenant, None)
        self._admitted.pop(tenant, None)

    def is_admitted(self, tenant: str, owner: str) -> bool:
        """Whether the owner of a message may still use the tenant."""
        return owner in self._admitted.get(tenant, ())

    def admits(self, tenant: str, peer: Peer) -> bool:
        """Whether a local process may use the tenant."""
        access = self._lists.get(tenant)
        return access is not None and access.admits(peer, self._groups_of)

    def serve(self) -> None:
        """Answer every waiting question of libzmq."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            requester, empty, *request = frames
            if len(request) < _REQUEST_FRAMES or request[0] != _VERSION:
                continue
            owner = self._judge(request)
            status = b"200" if owner is not None else b"400"
            text = b"OK" if owner is not None else b"not allowed"
            reply = [requester, empty, _VERSION, request[1], status, text, (owner or "").encode(), b""]
            self._socket.send_multipart(reply, zmq.DONTWAIT)

    def _judge(self, request: list[bytes]) -> str | None:
        """The owner's name for an admitted peer, None for a refused one."""
        domain, address, mechanism = request[2].decode(), request[3].decode(), request[5]
        if mechanism == b"NULL":
            owner = self._judge_local(domain, parse_peer(address))
        elif mechanism == b"CURVE" and len(request) > _REQUEST_FRAMES:
            owner = self._judge_key(domain, zmq.utils.z85.encode(request[_REQUEST_FRAMES]).decode())
        else:
            owner = None
        if owner is None:
            held_back = self._limit.take(domain, self._clock())
            if held_back is not None:
                self._log.warning("peer.refused", endpoint=domain, address=address, held_back=held_back)
        return owner

    def _judge_local(self, domain: str, peer: Peer | None) -> str | None:
        if peer is None:
            return None
        if not self.admits(domain, peer):
            return None
        return self._remember(domain, peer)

    def admit_local(self, tenant: str, peer: Peer) -> str | None:
        """The owner's name for a local process that may use the tenant, None for any other one."""
        return self._remember(tenant, peer) if self.admits(tenant, peer) else None

    def _remember(self, tenant: str, peer: Peer) -> str:
        owner = f"uid:{peer.uid}"
        self._admitted[tenant][owner] = peer
        return owner

    def _judge_key(self, domain: str, key: str) -> str | None:
        access = self._lists.get(domain)
        name = access.keys.get(key) if access is not None else None
        if name is None:
            return None
        owner = f"key:{name}"
        self._admitted[domain][owner] = key
        return owner

    def close(self) -> None:
        """Answer nobody any more."""
        self._socket.close()
