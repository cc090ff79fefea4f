"""What is at the other end of a stream, and one line on it that tells how a command goes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TextIO

from trtd.cli.values import cut

CLEAR_SCREEN = "\x1b[H\x1b[2J"
CLEAR_LINE = "\r\x1b[K"
BAR_CELLS = 20
LEAST_COLUMNS = 40
PLAIN_EVERY_S = 2.0
"""Between two lines of progress where there is no terminal."""

pause = time.sleep
"""Between two pictures of `--watch`."""


def is_terminal(stream: TextIO) -> bool:
    """Whether escape sequences mean something to who reads the stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """Whether to use colour: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def columns(stream: TextIO) -> int | None:
    """How many characters fit a line: those of the terminal, else of COLUMNS; None for no limit (pipes and files)."""
    if not stream.isatty():
        return None
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        width = 0
    chosen = os.environ.get("COLUMNS", "")
    width = width or (int(chosen) if chosen.isdecimal() else 80)
    return max(LEAST_COLUMNS, width)


def bar(part: float, cells: int = BAR_CELLS) -> str:
    """A bar of so many cells, of which a part from 0 to 1 is full."""
    full = round(min(1.0, max(0.0, part)) * cells)
    return f"[{'#' * full}{'.' * (cells - full)}]"


class ProgressLine:
    """How a command goes: a bar that is drawn anew on a terminal, a plain line now and then elsewhere.

    The daemon tells values by name (`waiting_for`, `queued`, `leased`, ...). What is `left` of the most that was ever
    left is the bar.
    """

    def __init__(self, stream: TextIO | None = None, *, now: float | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_shown = False
        self._most = 0
        self._told_at = time.monotonic() if now is None else now

    def show(self, progress: Mapping[str, Any], *, now: float | None = None) -> None:
        """Replace the line."""
        text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in progress.items() if name != "left")
        left = progress.get("left")
        if is_terminal(self._stream):
            if isinstance(left, int):
                self._most = max(self._most, left)
                text = f"{bar(1 - left / self._most if self._most else 1.0)} {text}"
            width = columns(self._stream) or LEAST_COLUMNS
            self._stream.write(CLEAR_LINE + cut(text, width - 1))
            self._stream.flush()
            self._is_shown = True
            return
        at = time.monotonic() if now is None else now
        if at - self._told_at >= PLAIN_EVERY_S:
            self._told_at = at
            self._stream.write(text + "\n")
            self._stream.flush()

    def clear(self) -> None:
        """Take the line away; repeatable."""
        if self._is_shown:
            self._stream.write(CLEAR_LINE)
            self._stream.flush()
            self._is_shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()
