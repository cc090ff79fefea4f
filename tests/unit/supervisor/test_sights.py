"""Reading what the kernel says of a process."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import wait_until
from trtd.core.patience import Sight, ThreadSight
from trtd.supervisor.sights import look_at


def put_thread(proc: Path, pid: int, thread: int, state: str, schedstat: str | None) -> None:
    """A thread as proc(5) shows it, with a name that tries to confuse."""
    task = proc / str(pid) / "task" / str(thread)
    task.mkdir(parents=True)
    (task / "stat").write_text(f"{thread} (a) T b) {state} 1 2 3\n", encoding="ascii")
    if schedstat is not None:
        (task / "schedstat").write_text(schedstat, encoding="ascii")


def test_threads_are_told_apart(tmp_path):
    """Each thread has its state and its times; the process is stopped when its main thread is."""
    put_thread(tmp_path, 7, 7, "S", "1500000000 250000000 9\n")
    put_thread(tmp_path, 7, 8, "R", "0 0 0\n")
    threads = {7: ThreadSight(False, 1.5, 0.25), 8: ThreadSight(True, 0.0, 0.0)}
    assert look_at(7, tmp_path) == Sight(False, threads)


@pytest.mark.parametrize("state", ["T", "t"])
def test_a_kernel_without_statistics_still_shows_a_stop(tmp_path, state):
    """Without scheduler statistics nothing is known of waiting, and a stop is seen all the same."""
    put_thread(tmp_path, 7, 7, state, None)
    assert look_at(7, tmp_path) == Sight(True, {})


def test_a_process_that_is_gone_is_not_seen(tmp_path):
    """Nothing is made up."""
    assert look_at(7, tmp_path) is None


def test_a_real_stop_is_seen():
    """SIGSTOP shows, SIGCONT ends it, and a process that sleeps is not taken for one that wants a processor."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            os.kill(process.pid, signal.SIGSTOP)
            wait_until(lambda: (sight := look_at(process.pid)) and sight.is_stopped, "the stop")
            os.kill(process.pid, signal.SIGCONT)
            sight = wait_until(lambda: (sight := look_at(process.pid)) and not sight.is_stopped and sight, "its end")
            assert list(sight.threads) in ([], [process.pid])
        finally:
            process.kill()
