"""The channel between the supervisor and one child: a SOCK_SEQPACKET socketpair with `trtd.wire.control` messages.

Packets keep message boundaries, so there is no framing; a closed peer reads as `ChannelClosed`. Used blocking by
workers and non-blocking by the loops of supervisor and router.
"""

from __future__ import annotations

import contextlib
import socket

from trtd.wire import control


class ChannelClosed(Exception):
    """The other side is gone."""


class Channel:
    """One end of the channel. Sending is safe from several threads: a packet is one system call."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Both ends: the supervisor's (non-blocking, closed on exec) and the child's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        return cls(ours), cls(theirs)

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        """The child's end, inherited under this number; not passed on to the child's own children."""
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        return cls(sock)

    def fileno(self) -> int:
        """The file descriptor, for pollers and for passing to a child."""
        return self._sock.fileno()

    def set_blocking(self, is_blocking: bool) -> None:
        """Whether `send` waits for a peer that does not read; the other end decides for itself."""
        self._sock.setblocking(is_blocking)

    def send(self, message: control.ChildMessage | control.SupervisorMessage, *, wait: bool = True) -> bool:
        """Send one message.

        Args:
            message: to send.
            wait: whether a blocking end waits for a peer that does not read.

        Returns:
            False when the peer does not read and its buffer is full, and this end does not wait: it is not sent.

        Raises:
            ChannelClosed: the other side is gone.
        """
        try:
            self._sock.send(control.encode(message), socket.MSG_NOSIGNAL | (0 if wait else socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        return True

    def receive(self, *, wait: bool = True) -> control.ChildMessage | control.SupervisorMessage | None:
        """The next message, None when `wait` is false and there is none.

        Raises:
            ChannelClosed: the other side is gone.
            trtd.errors.Malformed: the packet is no message.
        """
        try:
            packet = self._sock.recv(control.MAX_PACKET_BYTES, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        if not packet:
            raise ChannelClosed("closed by the other side")
        return control.decode_message(packet)

    def close(self) -> None:
        """Close this end; repeatable."""
        with contextlib.suppress(OSError):
            self._sock.close()
