"""The first steps of a child, where they cannot be taken."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trtd.child.channel import Channel
from trtd.core.faults import FaultKind
from trtd.errors import ExitCode
from trtd.supervisor.spawn import FirstWords, child_argv, sealed_memfd
from trtd.wire.control import FaultReport


@pytest.mark.parametrize("kind", ["worker", "router"])
def test_settings_of_another_version_end_the_child_with_one_line(kind):
    """A child that was installed over a running daemon says so, and shows no traceback."""
    ours, theirs = Channel.pair()
    settings_fd = sealed_memfd("settings", b"\x92\x01\x02")
    try:
        ended = subprocess.run(
            child_argv(kind, channel_fd=theirs.fileno(), settings_fd=settings_fd, parent_pid=os.getpid()),
            pass_fds=(theirs.fileno(), settings_fd),
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(settings_fd)
        ours.close()
        theirs.close()
    assert ended.returncode == ExitCode.INTERNAL, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "restart the daemon" in ended.stderr


TAKING = """
import os, sys
from trtd.child import trampoline
sys.stderr.write("before\\n")
trampoline.take_stderr(int(sys.argv[1]))
sys.stderr.write("after\\n")
sys.stderr.flush()
print(sorted(os.listdir("/proc/self/fd"), key=int)[:3], sys.argv[1] in os.listdir("/proc/self/fd"))
"""


def test_stderr_becomes_the_daemons_with_what_was_said_before():
    """From its hello a child writes to the daemon's stderr; earlier words are passed on, and no descriptor is left."""
    first_words = FirstWords()
    ours, theirs = os.pipe()
    try:
        argv = [sys.executable, "-c", TAKING, str(theirs)]
        ended = subprocess.run(argv, pass_fds=(theirs,), stderr=first_words.fd, stdout=subprocess.PIPE, check=True)
        os.close(theirs)
        assert os.read(ours, 100) == b"before\nafter\n"
        assert ended.stdout == b"['0', '1', '2'] False\n"
        assert first_words.read() == "before"
    finally:
        os.close(ours)
        first_words.close()


def test_a_worker_without_a_part_of_it_says_so_itself():
    """What is missing after the hello is told over the channel as a fault that no other process would mend."""
    ours, theirs = Channel.pair()
    program = "import sys; from trtd.child import trampoline; from trtd.child.channel import Channel\n"
    program += f"trampoline.cannot_start(Channel.from_fd({theirs.fileno()}), 3, ImportError('no numpy'))"
    try:
        ended = subprocess.run([sys.executable, "-c", program], pass_fds=(theirs.fileno(),), timeout=60, check=False)
        report = ours.receive(wait=True)
    finally:
        ours.close()
        theirs.close()
    assert ended.returncode == ExitCode.INTERNAL
    assert isinstance(report, FaultReport)
    assert (report.generation, report.fault.kind, report.fault.permanent) == (3, FaultKind.START_FAILED, True)
    assert report.fault.message == "cannot start: no numpy"
