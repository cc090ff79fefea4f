"""The first steps of every child: die with the supervisor, leave no core dump, read the settings, say hello.

The supervisor spawns `python -m trtd.router.main` or `python -m trtd.worker.main` with
`--channel FD --settings FD --parent PID`; everything else a child needs stands in the sealed settings.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from trtd.child.channel import Channel, ChannelClosed
from trtd.core.faults import start_failed
from trtd.errors import ExitCode, TrtdError
from trtd.wire import control
from trtd.wire.settings import RouterSettings, WorkerSettings

STDERR = 2
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4

OOM_SCORE_FILE = "/proc/self/oom_score_adj"
OOM_SCORES: dict[type, int] = {WorkerSettings: 300, RouterSettings: 100}
"""A tenant's worker goes first: it took the memory, most likely, and it alone is missed."""

Settings = TypeVar("Settings", WorkerSettings, RouterSettings)


@dataclass(frozen=True, slots=True)
class ChildArgs:
    """What stands on a child's command line."""

    channel_fd: int
    settings_fd: int
    parent_pid: int
    stderr_fd: int | None = None


def parse_args(argv: list[str]) -> ChildArgs:
    """The child's command line; it is written by `trtd.supervisor.spawn`, never by people."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--settings", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--stderr", type=int)
    args = parser.parse_args(argv)
    return ChildArgs(args.channel, args.settings, args.parent, args.stderr)


def die_with_parent(parent_pid: int) -> None:
    """Let the kernel SIGKILL this process when the supervisor's main thread ends (prctl(2), PR_SET_PDEATHSIG).

    The parent is compared afterwards, because it may have died before the call took effect.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os._exit(ExitCode.TEMPORARY)
    # Requests stand in our memory: no core dumps, and no ptrace by other processes of the same user.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def stand_before_supervisor(score: int) -> None:
    """Let a kernel that has no memory left end this child before its supervisor (proc(5), oom_score_adj).

    It has to come before `die_with_parent`, after which /proc is closed to us. A higher inherited score stays.
    """
    with contextlib.suppress(OSError, ValueError), open(OOM_SCORE_FILE, "r+", encoding="ascii") as file:  # noqa: PTH123 - pathlib would be one import more
        if int(file.read()) < score:
            file.seek(0)
            file.write(str(score))


def read_settings(fd: int, kind: type[Settings]) -> Settings:
    """The settings from the inherited memfd, which is closed afterwards.

    Settings that cannot be read were written by another version of trtd: it was replaced under the running daemon. The
    process ends, and the daemon does not try again by itself.
    """
    with os.fdopen(fd, "rb") as file:
        content = file.read()
    try:
        return control.decode_settings(content, kind)
    except TrtdError as error:
        sys.stderr.write(
            f"trtd: {error}. The daemon runs another version than is installed here; restart the daemon.\n"
        )
        sys.stderr.flush()
        os._exit(ExitCode.INTERNAL)


def cannot_start(channel: Channel, generation: int, cause: ImportError) -> NoReturn:
    """End a child of which a part is not installed: it says so itself, because every other one would end alike."""
    with contextlib.suppress(ChannelClosed):
        channel.send(control.FaultReport(generation, start_failed(str(cause))))
    os._exit(ExitCode.INTERNAL)


def take_stderr(fd: int) -> None:
    """Write to the daemon's stderr from now on; until now stderr was a file that the supervisor reads (`FirstWords`).

    What stands in it, such as a warning of the interpreter, is passed on.
    """
    sys.stderr.flush()
    length = os.lseek(STDERR, 0, os.SEEK_CUR)
    said = os.pread(STDERR, length, 0) if length else b""
    os.dup2(fd, STDERR, inheritable=True)
    os.close(fd)
    if said:
        with contextlib.suppress(OSError):
            os.write(STDERR, said)


def start(argv: list[str], kind: type[Settings], main_at: float | None = None) -> tuple[Channel, Settings]:
    """Do all first steps and say hello.

    SIGINT is ignored, because a terminal sends it to the whole group while only the supervisor decides; SIGTERM
    likewise.

    Args:
        argv: as `parse_args` reads it.
        kind: of the settings.
        main_at: start of the child's main(), where that was earlier than this call.
    """
    main_at = time.monotonic() if main_at is None else main_at
    args = parse_args(argv)
    stand_before_supervisor(OOM_SCORES[kind])
    die_with_parent(args.parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    settings = read_settings(args.settings_fd, kind)
    channel = Channel.from_fd(args.channel_fd)
    if args.stderr_fd is not None:
        take_stderr(args.stderr_fd)
    channel.send(control.Hello(generation=settings.generation, pid=os.getpid(), main_at=main_at))
    return channel, settings
