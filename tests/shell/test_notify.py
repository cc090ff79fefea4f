"""Statements to a service manager: where they go, what they look like, and who may not send them."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from tests.support.service_manager import Host
from trtd.supervisor.notify import MAX_STATUS_LENGTH, Notifier, take_notifier


@pytest.fixture
def host(tmp_path):
    with Host(tmp_path / "notify") as host:
        yield host


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_assignments_arrive_as_one_statement(tmp_path, kind):
    """Both kinds of address are spoken to, and one call is one datagram."""
    address = f"@trtd-test-{os.getpid()}" if kind == "abstract" else tmp_path / "notify"
    with Host(address) as host, contextlib.closing(Notifier(host.address)) as notifier:
        assert notifier.tell(RELOADING=1, MONOTONIC_USEC=17)
        assert host.receive() == {"RELOADING": "1", "MONOTONIC_USEC": "17"}


def test_a_status_is_one_line(host):
    """A newline in a value begins no further assignment, and a value has an end."""
    with contextlib.closing(Notifier(host.address)) as notifier:
        notifier.tell(STATUS="bad\nREADY=1 " + "x" * 1000)
    (statement,) = [host.receive()]
    assert list(statement) == ["STATUS"]
    assert statement["STATUS"].startswith("bad READY=1 x")
    assert len(statement["STATUS"]) == MAX_STATUS_LENGTH


def test_without_a_service_manager_nothing_happens():
    """No variable, no socket, no error."""
    notifier = take_notifier({}, pid=1)
    assert not notifier.is_heard
    assert notifier.tell(READY=1)
    notifier.close()


def test_what_is_not_taken_is_known(tmp_path):
    """A service manager that is gone, or does not read, never holds up the daemon; the caller learns of it."""
    with contextlib.closing(Notifier(str(tmp_path / "nobody"))) as notifier:
        assert not notifier.tell(READY=1)
    with Host(tmp_path / "notify") as host, contextlib.closing(Notifier(host.address)) as notifier:
        host._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        told = [notifier.tell(STATUS=f"{number}" * 300) for number in range(2000)]
        assert told[0]
        assert not told[-1]


def test_the_variables_are_taken_away(host):
    """Nobody who is started later finds the socket or the watchdog in the environment."""
    environ = {"NOTIFY_SOCKET": host.address, "WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "7", "PATH": "/bin"}
    with contextlib.closing(take_notifier(environ, pid=7)) as notifier:
        assert environ == {"PATH": "/bin"}
        assert notifier.watchdog_s == 5.0
        notifier.tell(READY=1)
    assert host.receive() == {"READY": "1"}


@pytest.mark.parametrize(
    ("variables", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "1000000"}, 1.0),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_of_others_is_not_fed(host, variables, watchdog_s):
    """A watchdog counts when it is meant for this process and says a length of time."""
    with contextlib.closing(take_notifier({"NOTIFY_SOCKET": host.address, **variables}, pid=7)) as notifier:
        assert notifier.watchdog_s == watchdog_s


@pytest.mark.parametrize("address", ["", "@", "relative/path", "vsock:2:1234"])
def test_an_address_of_another_kind_is_nobody(address):
    """What is no path and no abstract name is not spoken to."""
    assert not take_notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}, pid=7).is_heard
