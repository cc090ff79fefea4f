"""Builders for the supervisor's shells: small child programs, a listener that records, a fleet that is up."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from trtd.core.faults import ExitStatus
from trtd.supervisor import spawn
from trtd.supervisor.processes import Processes
from trtd.supervisor.spawn import ChildOrder

PATIENCE_S = 20.0

CHILD = """
import os, signal, sys, time
from trtd.child.channel import Channel
from trtd.wire import control
channel = Channel.from_fd({channel_fd})
def beat(progress=1):
    channel.send(control.WorkerBeat(1, progress, 0, 0, 0))
"""


class Recorder:
    """A listener that keeps what it was told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.babbled: list[str] = []
        self.exited: list[ExitStatus] = []
        self.first_words = ""
        self.order: list[str] = []
        self._changed = asyncio.Event()

    def child_said(self, name: str, generation: int, message: Any) -> None:
        self._note("said", self.said, message)

    def child_babbled(self, name: str, generation: int, reason: str) -> None:
        self._note("babbled", self.babbled, reason)

    def child_exited(self, name: str, generation: int, status: ExitStatus, at: float, first_words: str) -> None:
        self.first_words = first_words
        self._note("exited", self.exited, status)

    def _note(self, what: str, into: list[Any], value: Any) -> None:
        into.append(value)
        self.order.append(what)
        self._changed.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until the condition holds, looking again whenever something was told."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


def make_order(settings: bytes = b"") -> ChildOrder:
    """An order for a worker."""
    return ChildOrder("worker", settings)


def run_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let spawned children run this program, which finds `channel` and `beat` ready."""

    def argv(_kind: str, *, channel_fd: int, settings_fd: int, parent_pid: int, stderr_fd: int) -> list[str]:
        preamble = CHILD.format(channel_fd=channel_fd)
        return [sys.executable, "-c", f"{preamble}\nsettings_fd = {settings_fd}\n{program}"]

    monkeypatch.setattr(spawn, "child_argv", argv)


def make_processes(listener: Any) -> Processes:
    """Processes on the running loop."""
    return Processes(listener, os.environ, asyncio.get_running_loop())
