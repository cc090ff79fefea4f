"""One connection of a client on a unix socket: bytes in, messages out of them, and answers back. Never blocks.

Who may connect is decided in `trtd.router.reception`, what a message means in `trtd.router.intake`.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
from collections import deque
from collections.abc import Sequence
from typing import Any

from trtd.child.buffers import grow, resident_bytes
from trtd.child.stream import JOINED_BYTES, MAX_PARTS, join_small
from trtd.errors import Malformed, TooLarge, TrtdError
from trtd.router.backlog import Unread
from trtd.router.callers import Caller
from trtd.router.sockets import QUEUED_MESSAGES, Undelivered
from trtd.wire import zmtp
from trtd.wire.messages import MAX_HEADER_BYTES, MAX_TENSORS

READ_BYTES = 64 * 1024
"""What is read at once; a frame that is longer gets a buffer of its own."""
FIRST_BYTES = 2 * READ_BYTES
"""How large that buffer is at first, whatever the peer says of the frame's size."""
MAX_BODY_FRAMES = MAX_TENSORS + 1
"""Most frames after the header: tensors, and the area for the outputs."""
MAX_FRAMES_SKIPPED = 256
"""Frames without a message that are looked at in one go, so that an endless message takes no more than its turns."""
MAX_COMMAND_BYTES = 4096
MAX_OUT_BYTES = 16 * 1024 * 1024
"""Bytes that wait for a peer to read them, from which on it is full. What one answer holds may be more."""

Received = tuple[Caller, bytes, list[Any], int, TrtdError | None]
"""One message as it was read: who sent it, its header, its tensor frames (not copied), and the bytes of them all.

Where the last one is not None, it says why the message is not taken: its frames were not kept, nor was a header that is
too long to be looked at.
"""

_INT = struct.Struct("=i")
_SHORT_HEAD_BYTES = 2
_LONG_HEAD_BYTES = 9


class Broken(Exception):
    """Nothing more can come of a connection: its peer is gone, or does not speak as it should."""


class Guest:
    """One connection.

    Args:
        sock: accepted.
        caller: who it is, for the intake.
        uid: of the user at the other end.
        max_frame_bytes: a peer that sends a longer frame is disconnected.
        max_request_bytes: a longer message is not taken.
        unread: where is counted what the clients of its tenant have not read.

    Attributes:
        fd: of the connection, also once it is closed.
        uid: as given.
        is_welcome: whether the handshake is done.
        is_readable: whether `fill` may get something.
        is_gone: whether it is closed.
        taken_bytes: how much of a long frame has come.
        unread_bytes: what was kept for the peer to read.
        unread_messages: likewise.
        unread_answers: those in these messages; given up when the connection is closed.
        read_step: when the peer last read of that, see `Unread.step`.
    """

    __slots__ = (
        "_at",
        "_caller",
        "_data",
        "_frames",
        "_has_greeted",
        "_header",
        "_is_skipping",
        "_long",
        "_long_flags",
        "_long_size",
        "_max_frame_bytes",
        "_max_request_bytes",
        "_out",
        "_size",
        "_sock",
        "_to_skip",
        "_unread",
        "fd",
        "is_gone",
        "is_readable",
        "is_welcome",
        "read_step",
        "taken_bytes",
        "uid",
        "unread_answers",
        "unread_bytes",
        "unread_messages",
    )

    def __init__(
        self,
        sock: socket.socket,
        caller: Caller,
        uid: int,
        max_frame_bytes: int,
        max_request_bytes: int,
        unread: Unread,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._caller = caller
        self._max_frame_bytes = max_frame_bytes
        self._max_request_bytes = max_request_bytes
        self.fd = sock.fileno()
        self.uid = uid
        self.is_welcome = False
        self.is_readable = False
        self.is_gone = False
        self._has_greeted = False
        # What was read and not taken: `_data[_at:]`.
        self._data = b""
        self._at = 0
        # A long frame with a buffer of its own, filled so far; or how much of one that is thrown away is still to come.
        self._long: memoryview | None = None
        self._long_flags = 0
        self._long_size = 0
        self.taken_bytes = 0
        self._to_skip = 0
        # The message so far.
        self._header: bytes | None = None
        self._frames: list[Any] = []
        self._size = 0
        self._is_skipping = False
        # What the peer did not take yet, at the end of each message with the number of answers in it, else with None.
        self._out: deque[tuple[memoryview, int | None]] = deque()
        self._unread = unread
        self.unread_bytes = 0
        self.unread_messages = 0
        self.unread_answers = 0
        self.read_step = 0

    @property
    def has_unread(self) -> bool:
        """Whether bytes were read that `receive` has not looked at."""
        return self._at < len(self._data)

    @property
    def has_output(self) -> bool:
        """Whether `flush` has something to do once the connection is writable."""
        return bool(self._out)

    @property
    def begun_bytes(self) -> int:
        """What is kept of a message that is not whole."""
        size = self._size + len(self._data) - self._at
        return size if self._long is None else size + resident_bytes(self._long, self.taken_bytes)

    @property
    def is_awaited(self) -> bool:
        """Whether the peer has not read all that it was told, what the kernel holds included.

        A peer whose libzmq has stopped reading loses that when the connection is closed.
        """
        if self._out:
            return True
        held = fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(_INT.size))
        return bool(_INT.unpack(held)[0])

    # In

    def fill(self) -> bool:
        """Read once; whether there may be more.

        Raises:
            Broken: the peer is gone.
        """
        long = self._long
        try:
            if long is not None:
                if self.taken_bytes == len(long):
                    self._long = long = grow(long, self.taken_bytes, self._long_size, FIRST_BYTES)
                count = self._sock.recv_into(long[self.taken_bytes :])
                self.taken_bytes += count
                if count:
                    return True
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            raise Broken(str(error)) from None
        if not data:
            raise Broken("closed by the peer")
        count = len(data)
        if self._to_skip:
            skipped = min(self._to_skip, count)
            self._to_skip -= skipped
            data = data[skipped:]
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0
        return count == READ_BYTES

    def receive(self) -> Received | int | None:
        """The next message that was read, None when `fill` has to be called first.

        Or a number: so many frames were read off that belong to none.

        Raises:
            Broken: the peer does not speak so.
        """
        if self._long is not None:
            if self.taken_bytes < self._long_size:
                return None
            frame, self._long = self._long, None
            taken = self._take(self._long_flags, frame.toreadonly(), len(frame))
            if taken is not None:
                return taken
        data, at = self._data, self._at
        if not self.is_welcome:
            at = self._welcome(data, at)
            if not self.is_welcome:
                self._at = at
                return None
        end = len(data)
        received: Received | None = None
        others = 0
        while received is None and end - at >= _SHORT_HEAD_BYTES:
            flags = data[at]
            if flags & zmtp.LONG:
                if end - at < _LONG_HEAD_BYTES:
                    break
                size, start = zmtp.size_of(data, at), at + _LONG_HEAD_BYTES
            else:
                size, start = data[at + 1], at + _SHORT_HEAD_BYTES
            if flags & ~zmtp.ALL_FLAGS or size > self._max_frame_bytes:
                raise Broken("no frame, or one that is far too long")
            stop = start + size
            if stop > end:
                if size > READ_BYTES:
                    received = self._begin_long(flags, size, data[start:])
                    at = end
                break
            at = stop
            if flags & zmtp.COMMAND:
                self._obey(data[start:stop])
            else:
                received = self._take(flags, data[start:stop], size)
            others += 1
            if others == MAX_FRAMES_SKIPPED and received is None:
                self._at = at
                return others
        self._at = at
        return received

    def _take(self, flags: int, frame: Any, size: int) -> Received | None:
        """One frame of a message, whole; the message where it is complete or given up."""
        is_last = not flags & zmtp.MORE
        if self._is_skipping:
            self._is_skipping = not is_last
            return None
        problem = self._judge(size)
        if problem is not None:
            return self._refuse(flags, size, problem)
        self._size += size
        if self._header is None:
            self._header = bytes(frame)
        else:
            self._frames.append(frame)
        if not is_last:
            return None
        received: Received = self._caller, self._header, self._frames, self._size, None
        self._header, self._frames, self._size = None, [], 0
        return received

    def _judge(self, size: int) -> TrtdError | None:
        """Why the message cannot be taken once its next frame has this size."""
        if self._header is None:
            if size > MAX_HEADER_BYTES:
                return Malformed(f"the header has {size} bytes, the most is {MAX_HEADER_BYTES}")
        elif len(self._frames) == MAX_BODY_FRAMES:
            return Malformed(f"the message has more than {MAX_TENSORS} tensor frames")
        elif self._size + size > self._max_request_bytes:
            return TooLarge(f"the message has more than {self._max_request_bytes} bytes")
        return None

    def _refuse(self, flags: int, size: int, problem: TrtdError) -> Received:
        """Give a message up after one of its frames; the others are skipped."""
        received: Received = self._caller, self._header or b"", [], self._size + size, problem
        self._header, self._frames, self._size = None, [], 0
        self._is_skipping = bool(flags & zmtp.MORE)
        return received

    def _begin_long(self, flags: int, size: int, begun: bytes) -> Received | None:
        """A frame that is not whole, and longer than what is read at once: it gets its own buffer, or is skipped."""
        if flags & zmtp.COMMAND:
            raise Broken("a command that is far too long")
        problem = None if self._is_skipping else self._judge(size)
        if problem is not None or self._is_skipping:
            self._to_skip = size - len(begun)
            return self._take(flags, b"", size) if problem is None else self._refuse(flags, size, problem)
        self._long = grow(memoryview(begun), len(begun), size, FIRST_BYTES)
        self._long_flags, self._long_size, self.taken_bytes = flags, size, len(begun)
        return None

    def _welcome(self, data: bytes, at: int) -> int:
        """Go on with the handshake as far as what was read goes; how far that is."""
        try:
            if not self._has_greeted:
                greeting = data[at : at + zmtp.GREETING_BYTES]
                if greeting:
                    zmtp.check_greeting(greeting)
                if len(greeting) < zmtp.GREETING_BYTES:
                    return at
                self._has_greeted = True
                at += zmtp.GREETING_BYTES
            if len(data) - at < _SHORT_HEAD_BYTES:
                return at
            is_long = data[at] & zmtp.LONG
            start = at + (_LONG_HEAD_BYTES if is_long else _SHORT_HEAD_BYTES)
            if not data[at] & zmtp.COMMAND:
                raise Malformed("a message before the handshake")
            if len(data) < start:
                return at
            size = zmtp.size_of(data, at) if is_long else data[at + 1]
            if size > MAX_COMMAND_BYTES:
                raise Malformed("a command that is far too long")
            if len(data) < start + size:
                return at
            self._greet(data[start : start + size])
        except Malformed as error:
            raise Broken(error.message) from None
        return start + size

    def _greet(self, body: bytes) -> None:
        """The peer says that it is ready."""
        name, rest = zmtp.split_command(body)
        properties = zmtp.read_properties(rest) if name == b"READY" else {}
        kind = properties.get(b"socket-type")
        if kind not in zmtp.PEER_TYPES:
            raise Malformed("the peer is no DEALER")
        self._caller.is_req = kind == b"REQ"
        # A name that a peer chose would pass on to the next connection that chooses it, were it a name here.
        self._caller.is_named = bool(properties.get(b"identity"))
        self.is_welcome = True
        self._say(zmtp.READY)

    def _obey(self, body: bytes) -> None:
        try:
            name, rest = zmtp.split_command(body)
        except Malformed as error:
            raise Broken(error.message) from None
        answer = zmtp.pong(rest) if name == b"PING" else None
        if answer is not None and self.unread_messages < QUEUED_MESSAGES:
            self._say(answer)

    def _say(self, words: bytes) -> None:
        """Send a command. Where the peer is gone, what it sent before is still to be read."""
        with contextlib.suppress(Broken):
            self._write([words], 0)

    # Out

    def greet(self) -> None:
        """Say the first bytes, which every peer gets."""
        self._say(zmtp.GREETING)

    def send(self, frames: Sequence[Any], answers: int = 1) -> None:
        """Send a message with so many answers in it; what the peer does not take at once is kept.

        Raises:
            Undelivered: it was not taken.
        """
        if self.is_gone:
            raise Undelivered(is_full=False)
        if self.unread_messages >= QUEUED_MESSAGES or self.unread_bytes >= MAX_OUT_BYTES:
            raise Undelivered(is_full=True)
        try:
            self._write(zmtp.message_parts(frames), answers)
        except Broken:
            raise Undelivered(is_full=False) from None

    def _write(self, parts: list[Any], answers: int) -> None:
        size = sum(map(len, parts))
        blocks: list[Any] = [b"".join(parts)] if size < JOINED_BYTES else join_small(parts)
        sent = 0
        if not self._out:
            try:
                sent = self._sock.send(blocks[0]) if len(blocks) == 1 else self._sock.sendmsg(blocks[:MAX_PARTS])
            except BlockingIOError:
                pass
            except OSError as error:
                raise Broken(str(error)) from None
            if sent == size:
                return
        if not self._out:
            self.read_step = self._unread.step()
        self._unread.bytes += size - sent
        self.unread_bytes += size - sent
        for position, block in enumerate(blocks):
            view = memoryview(block)
            if sent >= len(view):
                sent -= len(view)
                continue
            self._out.append((view[sent:], answers if position == len(blocks) - 1 else None))
            sent = 0
        self.unread_messages += 1
        self.unread_answers += answers

    def flush(self) -> None:
        """Write what was kept, as far as the peer takes it.

        Raises:
            Broken: the peer is gone.
        """
        out = self._out
        while out:
            block, answers = out[0]
            try:
                sent = self._sock.send(block)
            except BlockingIOError:
                return
            except OSError as error:
                raise Broken(str(error)) from None
            self.unread_bytes -= sent
            self._unread.bytes -= sent
            self.read_step = self._unread.step()
            if sent < len(block):
                out[0] = block[sent:], answers
                continue
            out.popleft()
            if answers is not None:
                self.unread_messages -= 1
                self.unread_answers -= answers

    def close(self) -> None:
        """End the connection, and give up what its peer has not read. Repeatable."""
        self.is_gone = True
        self._out.clear()
        self._long, self._data, self._at = None, b"", 0
        self._header, self._frames, self._size = None, [], 0
        self._unread.bytes -= self.unread_bytes
        self._unread.given_up += self.unread_answers
        self.unread_bytes = self.unread_messages = self.unread_answers = 0
        self._sock.close()
