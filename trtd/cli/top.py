"""`trtd top`: the status on a live screen, with keys. The screen itself is `trtd.cli.top_view`."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator

from trtd.cli import operator
from trtd.cli.terminal import is_terminal
from trtd.errors import ExitCode, TrtdError, Usage

EVERY_S = 1.0


class Keyboard:
    """Keys as they are pressed, and changes of the terminal's size."""

    def __init__(self, fd: int, resized_fd: int) -> None:
        self._fd = fd
        self._resized_fd = resized_fd

    def wait(self, timeout_s: float) -> str | None:
        """The next key; an empty string when the size changed; None when neither came in time."""
        ready, _, _ = select.select([self._fd, self._resized_fd], [], [], max(0.0, timeout_s))
        if self._resized_fd in ready:
            os.read(self._resized_fd, 4096)
            return ""
        if self._fd in ready:
            # An end of input is an end of the screen too.
            return os.read(self._fd, 1).decode("ascii", "replace") or "q"
        return None


@contextlib.contextmanager
def keyboard(fd: int) -> Iterator[Keyboard]:
    """The terminal gives each key at once and shows none, until the end."""
    before = termios.tcgetattr(fd)
    resized, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    # The pipe is written by the interpreter's own handler, so that no change is lost between two waits.
    handler = signal.signal(signal.SIGWINCH, lambda *_: None)
    wakeup_before = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    try:
        tty.setcbreak(fd)
        yield Keyboard(fd, resized)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        signal.set_wakeup_fd(wakeup_before)
        signal.signal(signal.SIGWINCH, handler)
        os.close(resized)
        os.close(wakeup)


def top(args: argparse.Namespace) -> int:
    """Show the status until `q`. A daemon that is away is said so, and looked for again each second."""
    if not (sys.stdin.isatty() and is_terminal(sys.stdout)):
        raise Usage("trtd top needs a terminal; `trtd status --watch` does not")
    # Only this command pays for it.
    from rich.console import Console
    from rich.live import Live

    from trtd.cli.top_view import Screen

    console = Console(highlight=False, markup=False, emoji=False)
    screen = Screen()
    runtime_dir = operator.find_runtime_dir(args.runtime_dir)
    with keyboard(sys.stdin.fileno()) as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                screen.take(operator.call(runtime_dir, "status", {"tenant": args.tenant}))
            except TrtdError as error:
                screen.error = " ".join(error.message.split())
            until = time.monotonic() + EVERY_S
            while True:
                live.update(screen.picture(*console.size), refresh=True)
                key = keys.wait(until - time.monotonic())
                if key is None:
                    break
                if not screen.press(key):
                    return ExitCode.OK


def exit_code(code: int, args: argparse.Namespace) -> int:  # noqa: ARG001 - every renderer takes the arguments
    """The screen is gone and leaves nothing behind."""
    return code
