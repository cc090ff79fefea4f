"""Who an operator is, and which role that gives."""

from __future__ import annotations

import os
import socket

import pytest

from trtd.supervisor.peers import Peer, Roles, peer_of
from trtd.wire.operator import Role

ROLES = Roles(
    own_uid=1000,
    operator_uids=frozenset({2000}),
    operator_gids=frozenset({20}),
    viewer_uids=frozenset({3000}),
    viewer_gids=frozenset({30}),
)


@pytest.mark.parametrize(
    ("uid", "gids", "role"),
    [
        (0, {0}, Role.OPERATOR),
        (1000, {1}, Role.OPERATOR),
        (2000, {1}, Role.OPERATOR),
        (9, {1, 20}, Role.OPERATOR),
        (9, {20, 30}, Role.OPERATOR),
        (3000, {1}, Role.VIEWER),
        (9, {1, 30}, Role.VIEWER),
        (9, {1}, None),
    ],
)
def test_the_highest_role_counts(uid, gids, role):
    """Root and the daemon's user may do all; others what their user or one of their groups gives; strangers nothing."""
    assert ROLES.role_of(Peer(1, uid, frozenset(gids))) is role


def test_the_kernel_says_who_it_is():
    """A connected socket gives the peer's pid, user and groups."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
    assert peer.gids == {os.getegid(), *os.getgroups()}
