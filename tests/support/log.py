"""The log of this process, for a test that reads it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from trtd import observe


@contextmanager
def read_log() -> Iterator[io.StringIO]:
    """What is logged inside the block, as JSON lines."""
    stream = io.StringIO()
    observe.configure("json", stream=stream)
    try:
        yield stream
    finally:
        observe.configure()
