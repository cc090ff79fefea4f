"""A log that nobody reads must not keep a crashed process alive."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

CRASH = """
import faulthandler, os
from trtd.child.streams import let_nothing_wait
let_nothing_wait(os.environ)
faulthandler.enable()
faulthandler._sigsegv()
"""


@pytest.fixture
def full_pipe():
    """The writing end of a pipe that is full."""
    reader, writer = os.pipe()
    other = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(other, b"x" * 4096)
    yield writer
    for fd in (reader, writer, other):
        os.close(fd)


def test_a_crash_ends_though_nobody_reads_its_report(full_pipe):
    """Python's crash report is dropped where the pipe is full, and whoever else writes there still waits as before."""
    child = subprocess.run([sys.executable, "-c", CRASH], stderr=full_pipe, stdout=full_pipe, timeout=30, check=False)
    assert child.returncode == -signal.SIGSEGV
    assert os.get_blocking(full_pipe)
