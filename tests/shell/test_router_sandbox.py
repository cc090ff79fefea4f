"""The router in a sandbox that refuses it sockets."""

from __future__ import annotations

import socket

import pytest
import zmq

from trtd.router.sockets import Port, PortOptions


@pytest.mark.parametrize("refused", [socket.AF_INET, socket.AF_NETLINK])
def test_a_refused_network_is_an_error_and_no_abort(monkeypatch, refused):
    """Where no TCP socket, or none to list interfaces, may be opened, the endpoint is refused before libzmq sees it."""

    class Refusing(socket.socket):
        def __init__(self, family, *rest):
            if family == refused:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *rest)

    with zmq.Context() as context:
        port = Port(context, PortOptions("a", 1024), set())
        try:
            monkeypatch.setattr(socket, "socket", Refusing)
            with pytest.raises(OSError, match=f"no socket of {refused.name} may be opened .*RestrictAddressFamilies"):
                port.bind("tcp://127.0.0.1:0")
        finally:
            port.close()
