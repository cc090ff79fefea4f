"""Who may use a tenant, judged from what the kernel or CURVE says of the peer."""

from __future__ import annotations

import os
import pwd
from typing import Any

import pytest

from trtd.router.access import GROUPS_KEPT_S, AccessList, GroupLookup, Peer, parse_peer

OWN_UID = 500


def make_list(**fields: Any) -> AccessList:
    """A list on which nobody stands but the daemon itself and root."""
    defaults: dict[str, Any] = {
        "is_for_everyone": False,
        "uids": frozenset({OWN_UID, 0}),
        "gids": frozenset(),
        "keys": {},
    }
    return AccessList(**{**defaults, **fields})


def no_groups(peer: Peer) -> frozenset[int]:
    raise AssertionError(f"the groups of {peer} were looked up though they do not decide")


@pytest.mark.parametrize("uid", [0, OWN_UID])
def test_root_and_the_daemon_itself_always_may(uid):
    """An empty list admits the daemon's own user and root, without a look into the user database."""
    assert make_list().admits(Peer(uid, 7, 1), no_groups)


def test_a_stranger_may_not():
    """Whoever is not named is refused."""
    assert not make_list().admits(Peer(1000, 7, 1), no_groups)


def test_everyone_may_where_the_list_says_so():
    """`*` admits every local user."""
    assert make_list(is_for_everyone=True).admits(Peer(1000, 7, 1), no_groups)


def test_the_primary_group_counts_without_a_lookup():
    """The group that the kernel tells admits by itself."""
    assert make_list(gids=frozenset({7})).admits(Peer(1000, 7, 1), no_groups)


def test_supplementary_groups_count():
    """Membership in the user database admits, and only membership."""
    access = make_list(gids=frozenset({8}))
    assert access.admits(Peer(1000, 7, 1), lambda _: frozenset({7, 8}))
    assert not access.admits(Peer(1000, 7, 1), lambda _: frozenset({7}))


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1", "localhost", "localhost:1:2", "localhost:1:2:x", "localhost:1:2:3:4", "::1", "a:1:2:3"]
)
def test_only_the_kernels_words_name_a_peer(address):
    """Addresses of other transports, and anything else, name nobody."""
    assert parse_peer(address) is None


def test_the_kernels_words_are_uid_gid_and_pid():
    """The address of libzmq for an ipc peer is taken apart in this order."""
    assert parse_peer("localhost:1000:7:4711") == Peer(uid=1000, gid=7, pid=4711)


def test_groups_are_looked_up_once_and_remembered_briefly(monkeypatch):
    """The user database is asked again only after a while; a user that it does not know has the kernel's group."""
    now = 100.0
    calls = []

    def count(name: str, gid: int) -> list[int]:
        calls.append(name)
        return [gid, 42]

    monkeypatch.setattr(os, "getgrouplist", count)
    lookup = GroupLookup(lambda: now)
    me = Peer(os.getuid(), 7, 1)
    assert lookup(me) == {7, 42}
    assert lookup(me) == {7, 42}
    assert calls == [pwd.getpwuid(os.getuid()).pw_name]
    now += GROUPS_KEPT_S
    assert lookup(me) == {7, 42}
    assert len(calls) == 2
    unknown = next(uid for uid in range(4_000_000, 4_001_000) if not is_known(uid))
    assert lookup(Peer(unknown, 9, 1)) == {9}


def is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
