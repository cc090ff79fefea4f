"""How often this process is the child of a fork, seen from the one in which trtd was imported.

A client belongs to one process: its threads do not exist in a child, and its sockets are the parent's. To compare two
numbers costs nothing, to ask the kernel for the process id would cost a system call for each request.
"""

from __future__ import annotations

import os

depth = 0


def _forked() -> None:
    global depth  # the interpreter calls this in each child, before anything else can run there
    depth += 1


os.register_at_fork(after_in_child=_forked)
