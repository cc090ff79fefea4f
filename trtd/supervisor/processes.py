"""The live processes behind the children: their messages, their deaths, their groups. No decision is made here.

Each child has a pidfd and a channel in the event loop. A death is told once, after the child's last words were read;
the whole process group goes with its leader. The daemon is a subreaper, so that what a child left behind outside of
its group comes to us and is ended too. A process that was killed and is not reaped stays in `live` until the kernel
lets go of it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from trtd import observe
from trtd.child.channel import ChannelClosed
from trtd.core.faults import ExitStatus
from trtd.errors import TrtdError
from trtd.supervisor.spawn import ChildOrder, Spawned, spawn
from trtd.wire.control import ChildMessage, SupervisorMessage

PR_SET_CHILD_SUBREAPER = 36
MESSAGES_PER_TURN = 64
"""Most messages read of one child before the others have their turn."""
OUTBOX_MESSAGES = 8192
"""Most messages kept for a child that does not read."""
LAST_WORDS = 1024
"""Most messages read of a child that has ended, or is about to be judged; the buffer of a channel holds fewer."""

log = observe.get_logger()


class Listener(Protocol):
    """Who wants to know what the processes do. Called from the event loop only."""

    def child_said(self, name: str, generation: int, message: ChildMessage) -> None:
        """A message came over the child's channel."""

    def child_babbled(self, name: str, generation: int, reason: str) -> None:
        """A packet came that is no message."""

    def child_exited(self, name: str, generation: int, status: ExitStatus, at: float, first_words: str) -> None:
        """The process was reaped.

        Args:
            name: of the child.
            generation: which life of it.
            status: how it ended.
            at: monotonic instant at which its end was seen, as children measure it.
            first_words: what it wrote to stderr before it said hello.
        """


@dataclass(slots=True)
class Process:
    """One live process.

    Attributes:
        name: the child whose place it fills.
        generation: which life of the child.
        spawned: its handles.
        is_heard: whether its channel is still read.
        max_answer_bytes: of a worker: what it was told at its start.
        outbox: messages that wait until it reads on, oldest first.
    """

    name: str
    generation: int
    spawned: Spawned
    max_answer_bytes: int
    is_heard: bool = True
    outbox: deque[SupervisorMessage] = field(default_factory=deque)

    @property
    def pid(self) -> int:
        """Its process id, which is its process group's too."""
        return self.spawned.popen.pid


def become_subreaper() -> None:
    """Make orphaned descendants our children (prctl(2), PR_SET_CHILD_SUBREAPER).

    Raises:
        OSError: the kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def own_children() -> set[int]:
    """Process ids of all children of this process's threads, zombies included; empty where the kernel does not tell."""
    pids: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            pids.update(int(word) for word in path.read_text(encoding="ascii").split())
        except OSError:
            continue
    return pids


def status_of(result: os.waitid_result) -> ExitStatus:
    """The core's word for what waitid(2) says."""
    if result.si_code == os.CLD_EXITED:
        return ExitStatus(code=result.si_status)
    return ExitStatus(signal=result.si_status)


class Processes:
    """All live processes of the daemon, by name and generation."""

    def __init__(self, listener: Listener, environ: Mapping[str, str], loop: asyncio.AbstractEventLoop) -> None:
        self._listener = listener
        self._environ = environ
        self._loop = loop
        self._strangers = own_children()
        self.live: dict[tuple[str, int], Process] = {}

    def now(self) -> float:
        """The loop's clock."""
        return self._loop.time()

    def start(self, name: str, generation: int, order: ChildOrder) -> Process:
        """Start a child and listen to it.

        Raises:
            OSError: it could not be started.
        """
        process = Process(name, generation, spawn(order, self._environ), order.max_answer_bytes)
        self.live[name, generation] = process
        self._loop.add_reader(process.spawned.pidfd, self._ended, process)
        self._loop.add_reader(process.spawned.channel.fileno(), self._hear, process)
        return process

    def tell(self, name: str, generation: int, message: SupervisorMessage) -> bool:
        """Send a message to a child, after those that it has not read yet; never waits.

        Returns:
            False when the child is gone, or has not read for so long that no more is kept for it.
        """
        process = self.live.get((name, generation))
        if process is None or not process.is_heard or len(process.outbox) >= OUTBOX_MESSAGES:
            return False
        process.outbox.append(message)
        if len(process.outbox) == 1:
            self._send_outbox(process)
            if process.outbox:
                self._loop.add_writer(process.spawned.channel.fileno(), self._send_outbox, process)
        return True

    def kill(self, name: str, generation: int) -> None:
        """SIGKILL a child and its process group; nothing happens when it is gone."""
        process = self.live.get((name, generation))
        if process is None:
            return
        self._kill_group(process)
        try:
            signal.pidfd_send_signal(process.spawned.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def hear_all(self) -> None:
        """Read everything that has come of all children, so that nobody is called silent who was not heard."""
        for process in list(self.live.values()):
            for _ in range(LAST_WORDS):
                if not self._hear_one(process):
                    break

    def spare(self, pid: int) -> None:
        """A child of this process that somebody else here looks after: `sweep` leaves it alone."""
        self._strangers.add(pid)

    def spare_no_more(self, pid: int) -> None:
        """That child was reaped; its number may come back as an orphan's."""
        self._strangers.discard(pid)

    def sweep(self) -> None:
        """End and reap orphans that were left to us by children that are gone (call on SIGCHLD)."""
        known = {process.pid for process in self.live.values()} | self._strangers
        for pid in own_children() - known:
            try:
                os.kill(pid, signal.SIGKILL)
                reaped = os.waitpid(pid, os.WNOHANG)[0]
            except (ProcessLookupError, ChildProcessError):
                continue
            if reaped:
                log.info("orphan.reaped", pid=pid)

    def close(self, patience_s: float = 2.0) -> list[int]:
        """Kill what is left and stop listening; nothing is told any more. This is the last thing the daemon does.

        Returns:
            Process ids that the kernel had not let go of when the patience ended.
        """
        left = list(self.live.values())
        for process in left:
            self.kill(process.name, process.generation)
        until = time.monotonic() + patience_s
        unreaped = []
        for process in left:
            poller = select.poll()
            poller.register(process.spawned.pidfd, select.POLLIN)
            poller.poll(max(0.0, until - time.monotonic()) * 1000)
            result = os.waitid(os.P_PIDFD, process.spawned.pidfd, os.WEXITED | os.WNOHANG)
            if result is None:
                unreaped.append(process.pid)
            process.spawned.popen.returncode = -signal.SIGKILL
            self._let_go(process)
        return unreaped

    def _kill_group(self, process: Process) -> None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _send_outbox(self, process: Process) -> None:
        """Send what waits, as much as the child's buffer takes."""
        channel = process.spawned.channel
        try:
            while process.outbox and self._send_first(process):
                process.outbox.popleft()
        except ChannelClosed:
            process.outbox.clear()
        if not process.outbox:
            self._loop.remove_writer(channel.fileno())

    def _send_first(self, process: Process) -> bool:
        """Send the oldest message; False when the child does not read. One that cannot be written holds up no other."""
        message = process.outbox[0]
        try:
            return process.spawned.channel.send(message)
        except (TrtdError, ValueError) as error:
            log.error(
                "channel.message_dropped",
                child=process.name,
                generation=process.generation,
                message=type(message).__name__,
                cause=str(error),
            )
            return True

    def _hear(self, process: Process) -> None:
        """Read what a child says, a bounded number of messages per turn of the loop."""
        for _ in range(MESSAGES_PER_TURN):
            if not self._hear_one(process):
                return

    def _hear_one(self, process: Process) -> bool:
        """Read one message; False when there is none, or will be none."""
        if not process.is_heard:
            return False
        try:
            message = process.spawned.channel.receive(wait=False)
        except ChannelClosed:
            self._stop_hearing(process)
            return False
        except TrtdError as error:
            self._listener.child_babbled(process.name, process.generation, error.message)
            return True
        if message is None:
            return False
        self._listener.child_said(process.name, process.generation, message)  # type: ignore[arg-type] # see Channel
        return True

    def _stop_hearing(self, process: Process) -> None:
        if process.is_heard:
            process.is_heard = False
            process.outbox.clear()
            self._loop.remove_reader(process.spawned.channel.fileno())
            self._loop.remove_writer(process.spawned.channel.fileno())

    def _ended(self, process: Process) -> None:
        """The pidfd became readable: read the last words, end the group, reap, tell."""
        at = time.monotonic()
        for _ in range(LAST_WORDS):
            if not self._hear_one(process):
                break
        # The zombie still holds the group's number, so this cannot hit a group of somebody else.
        self._kill_group(process)
        result = os.waitid(os.P_PIDFD, process.spawned.pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return
        status = status_of(result)
        process.spawned.popen.returncode = status.code if status.code is not None else -(status.signal or 0)
        first_words = process.spawned.first_words.read()
        self._let_go(process)
        self._listener.child_exited(process.name, process.generation, status, at, first_words)

    def _let_go(self, process: Process) -> None:
        self._stop_hearing(process)
        self._loop.remove_reader(process.spawned.pidfd)
        os.close(process.spawned.pidfd)
        process.spawned.channel.close()
        process.spawned.first_words.close()
        del self.live[process.name, process.generation]
