"""`trtd top` on a terminal of its own: keys, a change of size, and a terminal that is as before when it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stand_in_daemon import StandInDaemon
from tests.support.status import make_child, make_status, make_tenant
from trtd.cli.main import main
from trtd.errors import ExitCode

PATIENCE_S = 60.0
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")


class Screen:
    """The command in a terminal, and all that it wrote."""

    def __init__(self, runtime_dir: Path, width: int, height: int) -> None:
        self._fd, theirs = pty.openpty()
        self.raw = ""
        self.resize(width, height, tell=False)
        self.before = termios.tcgetattr(theirs)
        environ = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trtd.cli.main", "top", "--runtime-dir", str(runtime_dir)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environ, "TERM": "xterm-256color"},
        )
        self._theirs = theirs

    def resize(self, width: int, height: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def press(self, key: str) -> None:
        os.write(self._fd, key.encode())

    def wait_for(self, text: str) -> str:
        """What was drawn up to and with this text, which is then forgotten."""
        until = time.monotonic() + PATIENCE_S
        while text not in ESCAPE.sub("", self.raw):
            ready, _, _ = select.select([self._fd], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"{text!r} did not come; the screen was {ESCAPE.sub('', self.raw)[-2000:]!r}"
            self.raw += os.read(self._fd, 65_536).decode()
        drawn, self.raw = ESCAPE.sub("", self.raw), ""
        return drawn

    def settings(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._fd)
        os.close(self._theirs)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[StandInDaemon]:
    daemon = StandInDaemon(tmp_path)
    fault = {"kind": "killed", "message": "killed by SIGKILL", "blame": "tenant", "permanent": False}
    worker = make_child("vision/0", last_fault=fault)
    daemon.lines = [{"ok": make_status(make_tenant("vision", workers=[worker]), make_tenant("ranking"))}]
    yield daemon
    daemon.close()


@pytest.fixture
def screen(daemon: StandInDaemon, tmp_path: Path) -> Iterator[Screen]:
    screen = Screen(tmp_path, 80, 24)
    yield screen
    screen.close()


def test_the_screen_from_the_first_picture_to_the_last_key(screen):
    """Tenants are drawn, `s` sorts, a wider terminal shows more at once, `q` ends with 0 and leaves all as it was."""
    drawn = screen.wait_for("sorted by name")
    assert "2 of 2 tenants ready" in drawn
    assert "vision" in drawn
    assert "LAST FAULT" not in drawn
    screen.press("s")
    screen.wait_for("sorted by req/s")
    screen.resize(160, 30)
    assert "killed by SIGKILL" in screen.wait_for("LAST FAULT") + screen.wait_for("sorted by req/s")
    screen.press("q")
    assert screen.process.wait(PATIENCE_S) == 0
    assert screen.settings() == screen.before


def test_a_daemon_that_goes_away_and_comes_back(screen, daemon):
    """The last picture stays with a line that says what is wrong, and is fresh again when the daemon answers."""
    screen.wait_for("sorted by name")
    lines, daemon.lines = daemon.lines, []
    drawn = screen.wait_for("the daemon at") + screen.wait_for("sorted by name")
    assert "vision" in drawn
    daemon.lines = lines
    while "the daemon at" in screen.wait_for("sorted by name"):
        pass
    screen.press("q")
    assert screen.process.wait(PATIENCE_S) == 0


def test_ctrl_c_leaves_the_terminal_as_it_was(screen):
    """Ctrl-C ends the command with 130 and gives the terminal back."""
    screen.wait_for("sorted by name")
    screen.process.send_signal(signal.SIGINT)
    assert screen.process.wait(PATIENCE_S) == 130
    assert screen.settings() == screen.before


def test_without_a_terminal_it_says_what_to_use(capsys):
    """In a pipe the command is a mistake, and names the one that works there."""
    assert main(["top"]) == ExitCode.USAGE
    assert "trtd status --watch" in capsys.readouterr().err
