"""Sockets that a service manager hands over: which are taken, for which addresses, and what becomes of others."""

from __future__ import annotations

import fcntl
import os
import socket

import pytest

from tests.support.activation import listening_socket, place_at
from tests.support.log import read_log
from trtd.supervisor import activation
from trtd.wire.settings import Listener

FIRST = 300


@pytest.fixture(autouse=True)
def _numbers_that_are_free(monkeypatch):
    monkeypatch.setattr(activation, "FIRST_FD", FIRST)
    yield
    for fd in range(FIRST, FIRST + 4):
        try:
            os.close(fd)
        except OSError:
            continue


def environ(count: int, **changes: str) -> dict[str, str]:
    return {"LISTEN_PID": "7", "LISTEN_FDS": str(count), "LISTEN_FDNAMES": "one:two", "PATH": "/bin", **changes}


def test_unix_sockets_stand_for_their_paths(tmp_path):
    """A listening unix socket serves the address of its path; it does not block and is inherited by nobody."""
    with listening_socket(tmp_path / "a.sock") as sock:
        place_at(FIRST, sock)
        given = environ(1)
        assert activation.take_listeners(given, pid=7) == (Listener(f"ipc://{tmp_path}/a.sock", FIRST),)
    assert given == {"PATH": "/bin"}
    assert not os.get_inheritable(FIRST)
    assert fcntl.fcntl(FIRST, fcntl.F_GETFL) & os.O_NONBLOCK


@pytest.mark.parametrize(
    ("family", "host", "addresses"),
    [
        (socket.AF_INET, "127.0.0.1", ["tcp://127.0.0.1:{}"]),
        (socket.AF_INET, "0.0.0.0", ["tcp://0.0.0.0:{}", "tcp://*:{}"]),
        (socket.AF_INET6, "::1", ["tcp://[::1]:{}"]),
        (socket.AF_INET6, "::", ["tcp://[::]:{}", "tcp://*:{}"]),
    ],
)
def test_tcp_sockets_stand_for_what_they_listen_on(family, host, addresses):
    """The address is written as in the configuration; one for every interface is also found under `*`."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind((host, 0))
        sock.listen()
        port = sock.getsockname()[1]
        place_at(FIRST, sock)
        found = activation.take_listeners(environ(1), pid=7)
    assert [listener.address for listener in found] == [address.format(port) for address in addresses]
    assert {listener.fd for listener in found} == {FIRST}


def test_what_is_no_listening_socket_is_refused(tmp_path):
    """A file, a socket that does not listen and a missing descriptor are closed and named; the rest is taken."""
    with (
        listening_socket(tmp_path / "a.sock") as good,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram,
        (tmp_path / "file").open("wb") as file,
        read_log() as log,
    ):
        place_at(FIRST, datagram, file.fileno(), good)
        found = activation.take_listeners(environ(4), pid=7)
    assert [listener.fd for listener in found] == [FIRST + 2]
    for fd in (FIRST, FIRST + 1):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert log.getvalue().count("listener.refused") == 3


@pytest.mark.parametrize("changes", [{"LISTEN_PID": "8"}, {"LISTEN_FDS": "-1"}, {"LISTEN_FDS": "many"}])
def test_sockets_of_others_are_left_alone(tmp_path, changes):
    """Variables that are meant for another process, or make no sense, hand nothing over, and are removed too."""
    with listening_socket(tmp_path / "a.sock") as sock:
        place_at(FIRST, sock)
        given = environ(1, **changes)
        assert activation.take_listeners(given, pid=7) == ()
    assert given == {"PATH": "/bin"}
    os.fstat(FIRST)
