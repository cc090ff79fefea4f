"""The client's socket when its connection breaks in the middle of a message."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from tests.support.client_router import WAIT_S, StandInRouter
from trtd.client.transport import ConnectionEvent, Transport


class Interrupted:
    """A socket that lets something happen before its second part is sent."""

    def __init__(self, socket: Any, happen: Callable[[], None]) -> None:
        self._socket = socket
        self._happen = happen
        self._parts = 0

    def send(self, *args: Any, **options: Any) -> Any:
        self._parts += 1
        if self._parts == 2:
            self._happen()
        return self._socket.send(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def wait_for(transport: Transport, event: ConnectionEvent) -> None:
    while event not in transport.connection_events():
        assert select.select([transport.monitor_fd], [], [], WAIT_S)[0], f"no {event}"


def refuse() -> None:
    raise zmq.Again


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_a_connection_that_breaks_within_a_message_is_no_error(tmp_path, parts):
    """The message counts as sent and lost, the monitor tells, and the next connection gets whole messages only."""
    address = f"ipc://{tmp_path}/a.sock"
    router = StandInRouter(address)
    transport = Transport(address)
    try:
        wait_for(transport, ConnectionEvent.CONNECTED)
        transport._socket = Interrupted(
            transport._socket, lambda: (router.close(), select.select([transport.monitor_fd], [], [], WAIT_S))
        )
        assert transport.send(b"header", [b"tensor"] * parts)
        wait_for(transport, ConnectionEvent.DISCONNECTED)
        with StandInRouter(address) as successor:
            wait_for(transport, ConnectionEvent.CONNECTED)
            assert transport.send(b"next", [b"1", b"2"])
            assert successor._socket.poll(int(WAIT_S * 1000))
            assert successor._socket.recv_multipart()[1:] == [b"next", b"1", b"2"]
    finally:
        transport.close()
        router.close()


def test_a_part_that_is_refused_after_the_first_loses_the_message_only(tmp_path):
    """ZeroMQ may refuse a later part when the connection breaks at that moment; the caller sees no error."""
    transport = Transport(f"ipc://{tmp_path}/a.sock")
    with StandInRouter(f"ipc://{tmp_path}/a.sock"):
        try:
            wait_for(transport, ConnectionEvent.CONNECTED)
            transport._socket = Interrupted(transport._socket, refuse)
            assert transport.send(b"header", [b"1", b"2"])
        finally:
            transport.close()
