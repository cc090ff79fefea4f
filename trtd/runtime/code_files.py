"""Whether a file may become code of this process: only where nobody but root and this user decides what is in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def untrusted(path: Path) -> str:
    """Why others could have decided what is in a file, or what the path leads to; empty where they could not.

    The file and every directory above it belong to root or to this user. Others may write to none, unless it is a
    directory in which each may only change what is his own.
    """
    try:
        real = path.resolve(strict=True)
        status = real.stat()
        if not stat.S_ISREG(status.st_mode):
            return f"{path} is not a regular file"
        for one in (real, *real.parents):
            status = one.stat()
            if status.st_uid not in (0, os.geteuid()):
                return f"{one} belongs to uid {status.st_uid}, not to root or to uid {os.geteuid()}"
            is_sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
            if status.st_mode & stat.S_IWOTH and not is_sticky:
                return f"{one} can be written by everyone (mode {stat.S_IMODE(status.st_mode):04o})"
    except OSError as error:
        return f"{path}: {(error.strerror or str(error)).lower()}"
    return ""
