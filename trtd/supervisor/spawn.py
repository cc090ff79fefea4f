"""How a child is started: command line and environment as values, settings in a sealed memfd, one call to spawn it.

The child begins in `trtd.child.trampoline`. What happens to it afterwards is in `trtd.supervisor.processes`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trtd.child.channel import Channel
from trtd.core.privacy import TELEMETRY_OFF
from trtd.wire.settings import DEFAULT_MAX_ANSWER_BYTES

ChildKind = Literal["router", "worker"]

MPS_VARIABLE = "CUDA_MPS_PIPE_DIRECTORY"
"""Where CUDA looks for the MPS server that an operator runs; without it, below /tmp."""

PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "NVIDIA_TF32_OVERRIDE",
    "NO_COLOR",
    "JOURNAL_STREAM",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPYCACHEPREFIX",
    "PYTHONWARNINGS",
)
"""What a child gets of the daemon's environment. Configuration does not come this way: a child reads its settings."""

PASSED_ON_PREFIX = "CUDA_"
"""What CUDA is told this way has no other: which devices there are and in which order, limits of MPS, the cache of
compiled kernels. A worker has to see the devices that `trtd doctor` sees in the same environment."""
DECIDED_HERE = "CUDA_MODULE_LOADING"
"""`tensorrt.lazy_loading` sets it in each worker."""

THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

STDERR = 2
FIRST_WORDS_BYTES = 16 * 1024
NO_PROGRAM = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP})
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, slots=True)
class ChildOrder:
    """Everything that is decided about a child before it exists.

    Attributes:
        kind: which program.
        settings: encoded `WorkerSettings` or `RouterSettings`.
        threads: threads of the numeric libraries inside it.
        inherited_fds: descriptors that it finds under the same numbers; they stay ours.
        max_answer_bytes: of a worker: how large it is told that it may answer.
    """

    kind: ChildKind
    settings: bytes
    threads: int = 1
    inherited_fds: tuple[int, ...] = ()
    max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES


def is_passed_on(name: str) -> bool:
    """Whether a child gets a variable of the daemon's environment."""
    if name == DECIDED_HERE:
        return False
    return name in PASSED_ON or name.startswith(PASSED_ON_PREFIX)


def child_environment(environ: Mapping[str, str], threads: int) -> dict[str, str]:
    """The environment of a child: what it needs of the daemon's, its thread counts, no telemetry, crash reports."""
    environment = {name: value for name, value in environ.items() if is_passed_on(name)}
    environment.update(TELEMETRY_OFF)
    environment.update(dict.fromkeys(THREAD_COUNTS, str(threads)))
    environment["PYTHONFAULTHANDLER"] = "1"
    return environment


def child_argv(
    kind: ChildKind, *, channel_fd: int, settings_fd: int, parent_pid: int, stderr_fd: int | None = None
) -> list[str]:
    """The command line of a child. `-P` keeps the working directory off its import path."""
    argv = [
        sys.executable, "-P", "-m", f"trtd.{kind}.main",
        "--channel", str(channel_fd), "--settings", str(settings_fd), "--parent", str(parent_pid),
    ]  # fmt: skip
    return argv if stderr_fd is None else [*argv, "--stderr", str(stderr_fd)]


class FirstWords:
    """What a child writes to stderr before it says hello, when it has our stderr: evidence of why it cannot start.

    A memory file of fixed size, so that nobody waits for a reader and nothing grows. What does not fit is lost.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("trtd-first-words", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, FIRST_WORDS_BYTES)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        except OSError:
            os.close(self.fd)
            raise

    def read(self) -> str:
        """All of it so far."""
        content = os.pread(self.fd, FIRST_WORDS_BYTES, 0)
        return content.rstrip(b"\0").decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Forget it."""
        os.close(self.fd)


def sealed_memfd(name: str, content: bytes) -> int:
    """A memory file with this content that nobody can change any more, positioned at its start.

    Raises:
        OSError: no memory or no file descriptor is left.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def blank_page(name: str, size_bytes: int) -> int:
    """A memory file of zeros that one child after the other may write, and so leave something to the next.

    Raises:
        OSError: no memory or no file descriptor is left.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(fd, size_bytes)
    return fd


@dataclass(slots=True)
class Spawned:
    """A process that was just started.

    Attributes:
        popen: the handle; whoever reaps the process sets its `returncode`, so that it never waits on a pid of others.
        pidfd: readable when the process has ended.
        channel: our end of its channel.
        first_words: what it wrote to stderr before it said hello.
    """

    popen: subprocess.Popen[bytes]
    pidfd: int
    channel: Channel
    first_words: FirstWords


def spawn(order: ChildOrder, environ: Mapping[str, str]) -> Spawned:
    """Start a child in a process group of its own: stdin from /dev/null, our stdout, and from its hello on our stderr.

    The call returns when the child's program has been loaded by the kernel, about 0.2 ms; subprocess takes the vfork
    path, because nothing is run between fork and exec. It has to be called from the main thread: the child's death
    signal follows the thread that started it.

    Raises:
        OSError: the process, a descriptor or memory could not be had.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        settings_fd = sealed_memfd(f"trtd-{order.kind}", order.settings)
        theirs.callback(os.close, settings_fd)
        channel, its_end = Channel.pair()
        ours.callback(channel.close)
        theirs.callback(its_end.close)
        first_words = FirstWords()
        ours.callback(first_words.close)
        stderr_fd = our_stderr()
        theirs.callback(os.close, stderr_fd)
        popen = subprocess.Popen(
            child_argv(
                order.kind,
                channel_fd=its_end.fileno(),
                settings_fd=settings_fd,
                parent_pid=os.getpid(),
                stderr_fd=stderr_fd,
            ),
            env=child_environment(environ, order.threads),
            pass_fds=(its_end.fileno(), settings_fd, stderr_fd, *order.inherited_fds),
            process_group=0,
            stdin=subprocess.DEVNULL,
            stderr=first_words.fd,
        )
        try:
            pidfd = os.pidfd_open(popen.pid)
        except OSError:
            popen.kill()
            popen.wait()
            raise
        ours.pop_all()
    return Spawned(popen, pidfd, channel, first_words)


def our_stderr() -> int:
    """A descriptor of what we write errors to; of /dev/null where that is closed.

    Raises:
        OSError: no descriptor is left.
    """
    try:
        return os.dup(STDERR)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def is_permanent(error: OSError) -> bool:
    """Whether a spawn failed because the interpreter is not there, or is none: the next try would fail alike."""
    return error.filename == sys.executable and error.errno in NO_PROGRAM
