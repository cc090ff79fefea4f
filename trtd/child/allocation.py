"""What a process keeps of the memory that it has freed, for the next message of the same size.

glibc gives large blocks back to the kernel at once, and gets them again page by page: with messages of 600 KiB that was
350 page faults for each of them, and half of the router's throughput.
"""

from __future__ import annotations

import contextlib
import ctypes

KEPT_BYTES = 16 * 1024 * 1024
"""Most free memory that is kept at the end of the heap; larger blocks are mapped, and given back."""
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""


def keep_freed() -> None:
    """Keep so much. Nothing happens with a C library that cannot be told."""
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
