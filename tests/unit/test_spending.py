"""Processor time as it is told: by kind of thread, and shared out to functions."""

from __future__ import annotations

import os
import threading

import pytest

from tests.bench.spending import Ask, Spending, line, median, stages_of, thread_times

PID = 70
STACKS = """\
thread (70): MainThread;main (trtd/router/main.py:46);RouterLoop.run (trtd/router/loop.py:10) 6
thread (70): MainThread;RouterLoop.run (trtd/router/loop.py:10);Port.send (trtd/router/sockets.py:5);send (zmq/s.py:9) 2
thread (71): closer;Closer._work (trtd/router/memfds.py:101);get (queue.py:1) 8
"""


def test_time_is_shared_out_by_kind_of_thread():
    """What trtd calls elsewhere counts for its own function, and a thread that only waits gets what it used."""
    assert stages_of(STACKS, PID, {"main": 40.0, "others": 1.0}) == [
        ("router/loop.py RouterLoop.run", 30.0),
        ("router/sockets.py Port.send", 10.0),
        ("router/memfds.py Closer._work", 1.0),
    ]


def test_a_stack_without_trtd_is_told_as_such():
    """Nothing is left out of the whole."""
    assert stages_of("thread (70): MainThread;run (threading.py:1) 3", PID, {"main": 5.0}) == [("outside of trtd", 5.0)]


def test_the_median_is_taken_of_each_figure():
    """One run in which a thread was busy with something else moves nothing, and a thread may be missing in one."""
    runs = [Spending(100.0, {"router": {"main": main, "libzmq": 4.0}}) for main in (10.0, 11.0, 90.0)]
    runs[0].us["router"]["others"] = 2.0
    assert median(runs) == Spending(100.0, {"router": {"main": 11.0, "libzmq": 4.0, "others": 0.0}})


def test_a_line_has_the_sums():
    """By process, and of all of them."""
    us = {"client": {"main": 20.4}, "router": {"main": 30.0, "libzmq": 10.0}, "worker": {"main": 0.2, "others": 25.0}}
    shown = line(Ask("1 KiB", "sockets", 8), Spending(1000.0, us))
    assert [part in shown for part in ("86", "20: main 20", "40: main 30, libzmq 10", "25: others 25")] == [True] * 4


def test_threads_are_counted_by_the_kernel():
    """Work in the main thread and in another one is found in each."""
    before = thread_times(os.getpid())
    has_worked, may_end = threading.Event(), threading.Event()

    def work() -> None:
        sum(range(3_000_000))
        has_worked.set()
        may_end.wait()

    other = threading.Thread(target=work)
    other.start()
    work_ended = has_worked.wait()
    sum(range(3_000_000))
    spent = thread_times(os.getpid())
    may_end.set()
    other.join()
    assert work_ended
    assert spent["main"] - before["main"] > 1000.0
    assert spent["others"] > before.get("others", 0.0)


@pytest.mark.parametrize("frame", ["run (threading.py:9)", "poll (zmq/sugar/poll.py:1)"])
def test_frames_of_others_are_not_ours(frame):
    """Only files of trtd name a stage."""
    assert stages_of(f"thread ({PID}): MainThread;{frame} 1", PID, {"main": 1.0}) == [("outside of trtd", 1.0)]
