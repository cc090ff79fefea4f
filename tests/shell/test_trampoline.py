"""The first steps of a child, where they cannot be taken."""

from __future__ import annotations

import os
import subprocess

import pytest

from trtd.child.channel import Channel
from trtd.errors import ExitCode
from trtd.supervisor.spawn import child_argv, sealed_memfd


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
