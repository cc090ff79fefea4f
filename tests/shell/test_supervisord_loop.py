"""What we put into supervisord's loop: the pipe that wakes it, and the talk with the daemon that never blocks it."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from supervisor import events
from supervisor.medusa.asyncore_25 import socket_map

from tests.support.stand_in_daemon import StandInDaemon
from trtd.cli import operator
from trtd.errors import DeadlineExceeded, Malformed, TrtdError, Unreachable
from trtd.hosts import supervisord_loop
from trtd.hosts.supervisord_loop import OperatorExchange, Waker, wake_on_child_exit

WAIT_MS = 10_000


@pytest.fixture(autouse=True)
def clean_loop() -> Iterator[None]:
    """Leave no trace in supervisor's module-wide tables."""
    yield
    signal.set_wakeup_fd(-1)
    events.clear()
    for fd, inhabitant in list(socket_map.items()):
        if isinstance(inhabitant, Waker):
            inhabitant.close()
        assert fd not in socket_map


@pytest.fixture
def daemon(tmp_path) -> Iterator[StandInDaemon]:
    with contextlib.closing(StandInDaemon(tmp_path)) as daemon:
        yield daemon


def turn(timeout_ms: int) -> bool:
    """One turn of supervisord's loop, in its order; whether anything woke it."""
    poller = select.poll()
    for fd, inhabitant in list(socket_map.items()):
        if mask := inhabitant.readable() * select.POLLIN | inhabitant.writable() * select.POLLOUT:
            poller.register(fd, mask)
    woken = poller.poll(timeout_ms)
    for fd, mask in woken:
        if mask & (select.POLLIN | select.POLLHUP):
            socket_map[fd].handle_read_event()
        if fd in socket_map and mask & select.POLLOUT:
            socket_map[fd].handle_write_event()
    return bool(woken)


def result(exchange: OperatorExchange) -> dict[str, Any]:
    while not exchange.is_over:
        assert turn(WAIT_MS), "nothing came"
    return exchange.result()


def test_the_death_of_a_child_wakes_the_loop():
    """SIGCHLD ends a poll that would have gone on, and so does the event that supervisord makes when it has reaped."""
    previous = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        wake_on_child_exit()
        assert not turn(0)
        child = subprocess.Popen(["true"])
        assert turn(WAIT_MS)
        child.wait()
        while turn(0):
            pass
        events.notify(make_exited_event())
        assert turn(WAIT_MS)
        assert not turn(0)
    finally:
        signal.signal(signal.SIGCHLD, previous)


def make_exited_event() -> events.ProcessStateExitedEvent:
    class Process:
        pid = 1

    return events.ProcessStateExitedEvent(Process(), 0)


def test_a_second_life_of_supervisord_has_one_waker():
    """After SIGHUP the stale pipe of the first life is out of the loop."""
    wake_on_child_exit()
    (first,) = socket_map.values()
    wake_on_child_exit()
    (second,) = socket_map.values()
    assert first is not second
    first.close()


def test_the_answer_comes_without_blocking(daemon, tmp_path):
    """Progress is passed over, the answer is found however it was cut, and the exchange leaves the loop."""
    daemon.lines = [{"progress": {"queued": 1}}, b'{"ok": {"ten', b'ants": {}}}\n']
    exchange = OperatorExchange(str(tmp_path), "drain", {"all": True, "tenant": None})
    assert result(exchange) == {"tenants": {}}
    assert daemon.asked == [{"v": 1, "command": "drain", "args": {"all": True}}]
    assert exchange.fd not in socket_map


def test_the_loop_turns_until_the_answer_is_collected(daemon, tmp_path, monkeypatch):
    """An answer keeps the loop awake for whoever waits for it, and is thrown away when nobody does."""
    daemon.lines = [{"ok": {}}]
    exchange = OperatorExchange(str(tmp_path), "status", {})
    while not exchange.is_over:
        assert turn(WAIT_MS)
    assert turn(0)
    monkeypatch.setattr(supervisord_loop.time, "monotonic", lambda: float("inf"))
    assert not turn(0)
    assert exchange.fd not in socket_map


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([], Unreachable),
        ([b'{"ok": {}'], Unreachable),
        ([b"no json\n"], Malformed),
        ([{"error": {"code": "draining", "message": "x"}}], operator.CommandFailed),
    ],
)
def test_whatever_the_daemon_does_ends_in_a_typed_error(daemon, tmp_path, lines, error):
    """An end in the middle, a line that is none, a refusal: the asker gets a typed error."""
    daemon.lines = lines
    with pytest.raises(error):
        result(OperatorExchange(str(tmp_path), "status", {}))


def test_a_silent_daemon_is_given_up(tmp_path, monkeypatch):
    """A daemon that takes the command and says nothing ends in an error, found by the loop itself."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "operator.sock"))
        silent.listen()
        exchange = OperatorExchange(str(tmp_path), "status", {})
        assert not turn(0)
        monkeypatch.setattr(operator, "ANSWER_TIMEOUT_S", -1.0)
        exchange._turn_until = 0.0
        turn(0)
        with pytest.raises(DeadlineExceeded, match="said nothing"):
            exchange.result()


def test_no_daemon_is_told_at_once(tmp_path):
    """Without a socket, or with one that nobody listens on, there is no exchange and nothing stays in the loop."""
    for _ in range(2):
        with pytest.raises(TrtdError, match="no daemon answers"):
            OperatorExchange(str(tmp_path), "status", {})
        assert not socket_map
        with socket.socket(socket.AF_UNIX) as dead, contextlib.suppress(OSError):
            dead.bind(str(tmp_path / "operator.sock"))
