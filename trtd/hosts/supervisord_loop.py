"""Two inhabitants of supervisord's event loop: one that wakes it, one that talks to trtd without blocking it.

supervisord 4.3 polls with a timeout of one second. SIGCHLD does not end the poll, and a child that was reaped in one
turn is started again in the next: a respawn takes 1.0 to 2.0 s. The waker makes both turns come at once. All of this
rests on `supervisor.medusa.asyncore_25.socket_map` and on nobody else using `signal.set_wakeup_fd`, hence 4.3 only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import Any

from supervisor import events
from supervisor.medusa.asyncore_25 import socket_map

from trtd.cli import operator
from trtd.errors import DeadlineExceeded, NotAllowed, TrtdError, Unreachable
from trtd.wire import addresses

LINGER_S = 1.0
"""How long an answer that nobody collects keeps supervisord's loop turning."""
READ_BYTES = 1 << 16


class Waker:
    """A pipe in supervisord's loop: a byte in it ends the poll."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        socket_map[self._read_fd] = self
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)

    def wake(self, *_event: Any) -> None:
        """End the poll that runs, or the next one."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_fd, b"\0")

    def close(self) -> None:
        """Leave the loop."""
        socket_map.pop(self._read_fd, None)
        os.close(self._read_fd)
        os.close(self._write_fd)

    # What supervisord's loop asks of everything in it

    def readable(self) -> bool:
        """Always."""
        return True

    def writable(self) -> bool:
        """Never."""
        return False

    def handle_read_event(self) -> None:
        """The loop is awake; that was all."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read_fd, READ_BYTES)

    def handle_error(self) -> None:
        """Without the pipe supervisord is as slow as without us, and does not spin."""
        socket_map.pop(self._read_fd, None)


def wake_on_child_exit() -> None:
    """Let supervisord's loop turn when a child has ended, and once more when it was reaped."""
    # After SIGHUP supervisord has closed all descriptors and calls again; what is left of the first call is stale.
    for fd in [fd for fd, inhabitant in socket_map.items() if isinstance(inhabitant, Waker | OperatorExchange)]:
        del socket_map[fd]
    events.subscribe(events.ProcessStateExitedEvent, Waker().wake)


class OperatorExchange:
    """One command on its way to the daemon and back, inside supervisord's loop.

    Raises:
        trtd.errors.Unreachable: no daemon listens there.
        trtd.errors.NotAllowed: the socket keeps supervisord's user out.
    """

    def __init__(self, runtime_dir: str, command: str, args: dict[str, Any]) -> None:
        self._path = addresses.operator_path(runtime_dir)
        self._received = bytearray()
        self._answer: dict[str, Any] | TrtdError | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(self._path)
            self._socket.sendall(operator.command_line(command, args))
        except PermissionError:
            self._socket.close()
            raise NotAllowed(f"the permissions of {self._path} keep supervisord's user out") from None
        except OSError as error:
            self._socket.close()
            raise Unreachable(f"no daemon answers at {self._path}: {error.strerror}") from None
        self.fd = self._socket.fileno()
        self._turn_until = time.monotonic() + operator.ANSWER_TIMEOUT_S
        socket_map[self.fd] = self

    @property
    def is_over(self) -> bool:
        """Whether there is an answer or an error."""
        return self._answer is not None

    def result(self) -> dict[str, Any]:
        """What the daemon answered, once it is over; the exchange leaves the loop.

        Raises:
            trtd.errors.TrtdError: what the daemon refused with, or why there is no answer.
        """
        self._leave()
        if isinstance(self._answer, TrtdError):
            raise self._answer
        return operator.result_of(self._answer or {})

    def _leave(self) -> None:
        socket_map.pop(self.fd, None)
        self._socket.close()

    def _end(self, answer: dict[str, Any] | TrtdError) -> None:
        self._answer = answer
        self._turn_until = time.monotonic() + LINGER_S

    # What supervisord's loop asks of everything in it

    def readable(self) -> bool:
        """Whether more is to come. The loop asks at every turn, so this is where a silent daemon is given up."""
        if not self.is_over and time.monotonic() > self._turn_until:
            self._end(DeadlineExceeded(f"the daemon at {self._path} said nothing for {operator.ANSWER_TIMEOUT_S:g} s"))
        return not self.is_over

    def writable(self) -> bool:
        """True while an answer waits: the socket always takes bytes, so the loop turns until the answer is collected.

        An answer whose asker has gone is thrown away after a while.
        """
        if self.is_over and time.monotonic() > self._turn_until:
            self._leave()
            return False
        return self.is_over

    def handle_write_event(self) -> None:
        """Nothing is written; see `writable`."""

    def handle_read_event(self) -> None:
        """Take what the daemon said; progress proves that it lives and is not kept."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(Unreachable(f"the daemon at {self._path} went away before it answered: {error.strerror}"))
            return
        self._received += data
        if not data or len(self._received) > operator.MAX_ANSWER_BYTES:
            self._end(Unreachable(f"the daemon at {self._path} went away before it answered"))
            return
        self._turn_until = time.monotonic() + operator.ANSWER_TIMEOUT_S
        *lines, rest = bytes(self._received).split(b"\n")
        self._received = bytearray(rest)
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            answer = operator.parse_answer(line, self._path)
        except TrtdError as error:
            self._end(error)
            return
        if "progress" not in answer and not self.is_over:
            self._end(answer)

    def handle_error(self) -> None:
        """Give up: the asker gets an error, supervisord goes on."""
        self._end(Unreachable(f"talking to the daemon at {self._path} failed"))
