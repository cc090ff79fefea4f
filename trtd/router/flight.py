"""The page that outlives routers, as this one has inherited it; see `trtd.core.flight`."""

from __future__ import annotations

import mmap
import os

from trtd.core.flight import PAGE_BYTES, Flight

NO_FD = -1


def open_flight(fd: int) -> Flight | None:
    """Begin a life with what the former one left; None where there is no page, or none that can be used.

    Args:
        fd: of the page, which is closed; `NO_FD` for none.
    """
    if fd == NO_FD:
        return None
    try:
        page = mmap.mmap(fd, PAGE_BYTES)
        os.close(fd)
    except (OSError, ValueError):
        return None
    return Flight(memoryview(page))
