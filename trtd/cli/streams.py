"""The three standard streams of a command, whatever whoever started it did with them.

A stream that was closed is opened on /dev/null. Its number would go to the next file or socket otherwise, and what is
printed there would be written into that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

NUMBERS = (0, 1, 2)


def open_missing() -> None:
    """Open what is closed of stdin, stdout and stderr; called before anything else is opened."""
    for number in NUMBERS:
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is missing: those below it are open by now.
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the process ends


def discard_output() -> None:
    """Write what Python still holds for stdout to nobody: it must not fail once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
