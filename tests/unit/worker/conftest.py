"""Shared memory of a client in the hands of a worker."""

from __future__ import annotations

import pytest

from tests.support.memory import ClientMemory, mapped_count
from trtd.runtime import open_runtime
from trtd.worker.arenas import Arenas


@pytest.fixture
def memory():
    """Shared memory of a client."""
    with ClientMemory() as memory:
        yield memory


@pytest.fixture
def runtime():
    """What pins it."""
    return open_runtime("scripted", threads=1)


@pytest.fixture
def arenas(runtime, memory):
    """Arenas with that memory open; nothing may be mapped any more after the test."""
    arenas = Arenas(runtime)
    arenas.open(memory.key, memory.size_bytes, memory.duplicate())
    yield arenas
    arenas.clear()
    assert mapped_count() == 0
