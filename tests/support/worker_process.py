"""A real worker process at the end of a real socketpair, for tests that play the supervisor."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from trtd.child.channel import Channel, ChannelClosed
from trtd.wire import control
from trtd.wire.settings import WorkerSettings

PATIENCE_S = 30.0
Message = TypeVar("Message")


class SpawnedWorker:
    """A worker as the supervisor sees it. Used as a context: the process is gone afterwards.

    Args:
        settings: of the worker.
        program: what the interpreter runs, with the arguments of `trtd.worker.main` behind it.
    """

    def __init__(self, settings: WorkerSettings, program: Sequence[str] = ("-m", "trtd.worker.main")) -> None:
        ours, theirs = Channel.pair()
        fd = os.memfd_create("settings")
        os.write(fd, control.encode_settings(settings))
        os.lseek(fd, 0, os.SEEK_SET)
        fds = (theirs.fileno(), fd)
        arguments = ["--channel", str(fds[0]), "--settings", str(fds[1]), "--parent", str(os.getpid())]
        self.spawned_at = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            pass_fds=fds,
            process_group=0,
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        os.close(fd)
        self.channel = ours
        self.messages: list[Any] = []

    def __enter__(self) -> SpawnedWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.channel.close()

    def wait_for(self, kind: type[Message], *, where: Callable[[Any], bool] = lambda _: True) -> Message:
        """The next message of a kind; those before it are kept in `messages`."""
        ends_at = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends_at:
            message = self._receive(ends_at)
            self.messages.append(message)
            if isinstance(message, kind) and where(message):
                return message
        raise AssertionError(f"no {kind.__name__}; got {self.messages[-5:]}")

    def ended(self) -> int:
        """Wait for the end of the process; its exit code."""
        return self.process.wait(PATIENCE_S)

    def said(self) -> str:
        """What it wrote to stderr, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def _receive(self, ends_at: float) -> Any:
        while time.monotonic() < ends_at:
            try:
                message = self.channel.receive()
            except ChannelClosed as error:
                raise AssertionError(f"the worker has gone: {self.messages[-5:]}; {self.said()}") from error
            if message is not None:
                return message
            time.sleep(0.001)
        raise AssertionError(f"the worker said nothing more after {self.messages[-5:]}")
