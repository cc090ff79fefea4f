"""SHELL: the socket on which arenas are offered to the router. Never waits; knows nothing of what is in them."""

from __future__ import annotations

import contextlib
import socket

from trtd.errors import TrtdError
from trtd.wire.arenas import MAX_PACKET_BYTES, ArenaOffered, ArenaPacket, decode_packet, encode_packet


class Offers:
    """One connection to the socket of one tenant."""

    def __init__(self, path: str) -> None:
        """Connect.

        Raises:
            OSError: nobody listens there, or takes no connection at the moment.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Not as a flag of the type: gevent's sockets wait all the same unless they are told so.
        self._socket.setblocking(False)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def offer(self, number: int, size_bytes: int, fd: int) -> bool:
        """Offer an arena; False when the socket takes nothing at the moment.

        Raises:
            OSError: the connection is gone.
        """
        try:
            socket.send_fds(self._socket, [encode_packet(ArenaOffered(number, size_bytes))], [fd])
        except BlockingIOError:
            return False
        return True

    def tell(self, packet: ArenaPacket) -> None:
        """Send a packet that need not arrive: the end of the connection says the same, later."""
        with contextlib.suppress(OSError):
            self._socket.send(encode_packet(packet))

    def receive(self) -> ArenaPacket | None:
        """The next packet, None when there is none at the moment.

        Raises:
            OSError: the connection is gone, or the other side does not speak this protocol.
        """
        try:
            data = self._socket.recv(MAX_PACKET_BYTES)
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionResetError("the router closed the connection")
        try:
            return decode_packet(data)
        except TrtdError as error:
            raise ConnectionAbortedError(error.message) from None

    def close(self) -> None:
        """End the connection, which withdraws every arena that was offered on it."""
        self._socket.close()
