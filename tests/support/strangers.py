"""Processes of a user whom nobody has admitted, which connect to sockets of a daemon. Only root can start them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# The directory is reached through an inherited descriptor, because its parents may be closed to that user.
PROGRAM = """
import os, select, socket, struct, sys, time
uid, directory, kind, mode, count, seconds, *names = sys.argv[1:]
# Here and not before, because that user may not run this interpreter.
os.setgroups([]), os.setgid(int(uid)), os.setuid(int(uid))
kind, count = int(kind), int(count)
held, outcomes, until = [], {}, time.monotonic() + float(seconds)

def connect(name):
    sock = socket.socket(socket.AF_UNIX, kind)
    # Blocking, because a socket with a timeout does not wait where the backlog is full.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
    try:
        sock.connect(f"{directory}/{name}")
        word = "connected"
    except OSError as error:
        word = type(error).__name__
    outcomes[word] = outcomes.get(word, 0) + 1
    held.append(sock)

number = 0
print("begun", flush=True)
while number < count and time.monotonic() < until:
    try:
        connect(names[number % len(names)])
    except OSError:
        outcomes["no descriptor"] = outcomes.get("no descriptor", 0) + 1
        held.clear()
    if mode == "storm" and len(held) >= 500:
        held.clear()
    if number % 100 == 0 and select.select([sys.stdin], [], [], 0)[0]:
        break
    number += 1
print(outcomes, flush=True)
sys.stdin.read()
"""


class Strangers:
    """A process of another user that connects to sockets and says nothing.

    Args:
        directory: in which the sockets are.
        names: of the sockets, which take turns.
        mode: `hold` keeps all connections until `close`, `storm` lets go of them 500 at a time and goes on.
        count: connections at most.
        seconds: time at most.
        kind: of the connections.
        uid: of the user.
    """

    def __init__(
        self,
        directory: Path,
        *names: str,
        mode: str = "hold",
        count: int = 200,
        seconds: float = 10.0,
        kind: int = 1,
        uid: int = NOBODY,
    ) -> None:
        fd = os.open(directory, os.O_PATH)
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-S", "-c", PROGRAM, str(uid), f"/proc/self/fd/{fd}", str(kind), mode),
                    *(str(count), str(seconds), *names),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(fd,),
                text=True,
            )
        finally:
            os.close(fd)
        self._outcomes: dict[str, int] | None = None
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def stop(self) -> dict[str, int]:
        """Let it try no more; how its connections went."""
        assert self._process.stdin is not None
        self._process.stdin.write("stop\n")
        self._process.stdin.flush()
        return self.outcomes()

    def outcomes(self) -> dict[str, int]:
        """How the connections went, once all were tried."""
        if self._outcomes is None:
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            self._outcomes = {
                word.strip().strip("'"): int(number)
                for word, number in (part.split(":") for part in line.strip().strip("{}").split(",") if part)
            }
        return self._outcomes

    def close(self) -> None:
        """End the process, and with it its connections."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
