"""Standard output and error in which no write waits, so that a reader that stands still stops nobody.

`trtd.observe` looks before it writes, but not everybody asks it: Python's own crash report, the runtime libraries. Such
a write into a pipe that is full would keep a crashed process alive, and silent, with its interpreter locked.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping

from trtd.observe import JOURNAL_VARIABLE

OUTPUT_FDS = (1, 2)


def let_nothing_wait(environ: Mapping[str, str], fds: Iterable[int] = OUTPUT_FDS) -> None:
    """Have writes to pipes and terminals, and to the journal, fail at once where they would wait.

    Whether a write waits belongs to the open file, which may be shared with whoever started us. So a pipe or terminal
    is opened once more, for us and our children; the journal's stream, which cannot be, is ours alone. Where neither
    can be done, everything stays as it is.
    """
    for fd in fds:
        with contextlib.suppress(OSError):
            status = os.fstat(fd)
            if stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
                own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
                os.dup2(own, fd)
                os.close(own)
            elif environ.get(JOURNAL_VARIABLE) == f"{status.st_dev}:{status.st_ino}":
                os.set_blocking(fd, False)
