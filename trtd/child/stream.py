"""The stream between the router and one worker: packed messages over a unix socket, in batches, without a thread.

A private hop does not need what ZeroMQ is good at, and pays for its threads: of the twelve wake-ups of a small request
that goes through two ZeroMQ hops and back, four were those of this hop's two I/O threads. Here the one thread of each
side reads and writes itself, many messages per system call.

A `Stream` never blocks: what the peer does not read yet is kept and leaves with `flush`. How much that may be is for
the users to bound (the router by the leases of a worker). Descriptors may travel beside a message. Not thread-safe.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

from trtd.child.buffers import grow
from trtd.errors import Malformed
from trtd.wire import packing

READ_BYTES = 64 * 1024
"""What is read at once; a longer message gets a buffer of its own."""
JOINED_BYTES = 64 * 1024
"""Parts below this size are joined before they are written; copying them costs less than a longer list."""
MAX_PARTS = 512
"""Parts in one system call, below the kernel's bound of 1,024."""
BUFFER_BYTES = 1024 * 1024
"""What the kernel is asked to hold in each direction; it grants what its own limit allows."""
MAX_MESSAGE_BYTES = 1 << 32
MAX_FDS = 16
"""Descriptors that come with one read."""

NOTHING = memoryview(b"")
_PEER = struct.Struct("=iII")
_FD_SPACE = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


class StreamClosed(Exception):
    """The other side is gone."""


class Stream:
    """One end.

    Args:
        sock: connected; becomes the stream's own.
        takes_fds: whether descriptors may come from the peer; else the kernel closes them.

    Attributes:
        fds: descriptors that came, in the order of their messages; whoever takes one has to close it.
        unread_bytes: of what was read, how many `receive` has not handed out.
        max_message_bytes: a longer message is not taken.
    """

    def __init__(self, sock: socket.socket, *, takes_fds: bool = False) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._sock = sock
        self._takes_fds = takes_fds
        self.fds: deque[int] = deque()
        self._out: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        # What was read and not taken: `_data[_at:_end]`. A longer message gets a buffer that grows with it.
        self._data = NOTHING
        self._at = 0
        self._end = 0
        self.unread_bytes = 0
        self.max_message_bytes = MAX_MESSAGE_BYTES

    def fileno(self) -> int:
        """The descriptor, for pollers."""
        return self._sock.fileno()

    @property
    def has_output(self) -> bool:
        """Whether `flush` has something to do once the descriptor is writable."""
        return bool(self._out)

    def send(self, frames: Sequence[Any], fds: Sequence[int] = ()) -> None:
        """Send one message; what the peer does not take at once is kept, and its frames must not change until then.

        Args:
            frames: of the message.
            fds: descriptors that travel beside it; they may be closed afterwards.

        Raises:
            StreamClosed: the peer is gone.
        """
        parts, size_bytes = packing.pack_sized(frames)
        blocks: list[Any] = [b"".join(parts)] if size_bytes < JOINED_BYTES else join_small(parts)
        if self._out or fds:
            # The first bytes of a message carry its descriptors.
            self._out.append((memoryview(blocks[0]), tuple(map(os.dup, fds))))
            self._out.extend((block, ()) for block in blocks[1:])
            self.flush()
            return
        try:
            sent = self._sock.send(blocks[0]) if len(blocks) == 1 else self._sock.sendmsg(blocks[:MAX_PARTS])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise StreamClosed(str(error)) from error
        if sent < size_bytes:
            self._keep(blocks, sent)

    def _keep(self, blocks: list[Any], sent: int) -> None:
        for kept in blocks:
            block = memoryview(kept)
            if sent >= len(block):
                sent -= len(block)
            else:
                self._out.append((block[sent:], ()))
                sent = 0

    def flush(self) -> None:
        """Write what was kept, as far as the peer takes it.

        Raises:
            StreamClosed: the peer is gone.
        """
        out = self._out
        while out:
            block, fds = out[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._sock.sendmsg([block], rights)
            except BlockingIOError:
                return
            except OSError as error:
                raise StreamClosed(str(error)) from error
            for fd in fds:
                os.close(fd)
            if sent < len(block):
                out[0] = (block[sent:], ())
            else:
                out.popleft()

    def receive(self) -> list[memoryview] | None:
        """The frames of the next message that was read; None when `fill` has to be called first.

        Raises:
            Malformed: the peer does not speak so; nothing more can be read from it.
        """
        found = packing.unpack_first(self._data, self._at, self._end)
        if found is None:
            return None
        frames, self._at = found
        self.unread_bytes = self._end - self._at
        if not (self.unread_bytes or self._data.readonly):
            # A long message lives as long as whoever took it wants.
            self._data, self._at, self._end = NOTHING, 0, 0
        return frames

    def fill(self) -> bool:
        """Read once. Frames that were handed out stay as they are.

        Returns:
            Whether there may be more: the room for it was filled. Where nothing more is there, a poller tells of what
            comes; to read in vain takes as long as to read a message.

        Raises:
            StreamClosed: the peer is gone, and all that it sent was taken.
            Malformed: as `receive`.
        """
        waiting = self._end - self._at
        length = packing.message_bytes(self._data, self._at) if waiting else None
        try:
            if length is None or length <= READ_BYTES:
                count, room = self._read(waiting)
            else:
                count, room = self._read_on(length)
        except BlockingIOError:
            return False
        except OSError as error:
            raise StreamClosed(str(error)) from error
        if count == 0:
            raise StreamClosed("closed by the other side")
        return count == room

    def next_bytes(self) -> int:
        """The size of a long message of which only the beginning was read; 0 without such.

        Raises:
            Malformed: as `receive`.
        """
        waiting = self._end - self._at
        length = packing.message_bytes(self._data, self._at) if waiting and self._data.readonly else None
        return length if length is not None and length > max(waiting, READ_BYTES) else 0

    def begun_bytes(self) -> int:
        """The size of a long message that is being read, or was read and not taken; 0 without such."""
        if self._data.readonly:
            return 0
        return packing.message_bytes(self._data, self._at) or 0

    def _read(self, waiting: int) -> tuple[int, int]:
        """Read what there is, behind what waits; how much came, and how much could have come."""
        if self._takes_fds:
            data, rights, _, _ = self._sock.recvmsg(READ_BYTES, _FD_SPACE, socket.MSG_CMSG_CLOEXEC)
            if rights:
                self._take(rights)
        else:
            data = self._sock.recv(READ_BYTES)
        count = len(data)
        if waiting:
            data = bytes(self._data[self._at : self._end]) + data
        self._data, self._at, self._end = memoryview(data), 0, waiting + count
        return count, READ_BYTES

    def _read_on(self, length: int) -> tuple[int, int]:
        """Read on in a long message, into a buffer of its own."""
        if length > self.max_message_bytes:
            raise Malformed(f"a message of {length} bytes is too long: the most is {self.max_message_bytes}")
        if self._data.readonly or self._end == len(self._data):
            waiting = self._end - self._at
            self._data = grow(self._data[self._at : self._end], waiting, length)
            self._at, self._end = 0, waiting
        room = self._data[self._end :]
        if self._takes_fds:
            count, rights, _, _ = self._sock.recvmsg_into([room], _FD_SPACE, socket.MSG_CMSG_CLOEXEC)
            self._take(rights)
        else:
            count = self._sock.recv_into(room)
        self._end += count
        return count, len(room)

    def _take(self, rights: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self.fds.extend(array.array("i", data))

    def close(self) -> None:
        """Close this end and every descriptor that nobody took; repeatable."""
        while self.fds:
            os.close(self.fds.popleft())
        while self._out:
            for fd in self._out.popleft()[1]:
                os.close(fd)
        with contextlib.suppress(OSError):
            self._sock.close()


def join_small(parts: list[Any]) -> list[memoryview]:
    """The parts as few blocks of bytes: small ones joined, large ones as they are."""
    blocks: list[memoryview] = []
    small: list[Any] = []
    for part in parts:
        if type(part) is bytes and len(part) < JOINED_BYTES:
            small.append(part)
            continue
        view = memoryview(part)
        if view.nbytes < JOINED_BYTES:
            small.append(view)
            continue
        if small:
            blocks.append(memoryview(b"".join(small)))
            small = []
        blocks.append(view.cast("B") if view.format != "B" or view.ndim != 1 else view)
    if small:
        blocks.append(memoryview(b"".join(small)))
    return blocks


def peer_of(sock: socket.socket) -> tuple[int, int, int]:
    """The process at the other end of a unix socket, as the kernel knew it when it connected: pid, uid, gid."""
    pid, uid, gid = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return pid, uid, gid
