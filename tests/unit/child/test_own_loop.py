"""The loop whose clock stands still with its process."""

from __future__ import annotations

import time

from trtd.child.own_loop import OwnLoop


def test_a_pause_brings_no_timer_nearer():
    """After half a minute in which the loop did not run, a timer that was seconds away still is."""
    pause_s = 0.0

    def monotonic() -> float:
        return time.monotonic() + pause_s

    def stand_still() -> None:
        nonlocal pause_s
        pause_s += 30.0

    loop = OwnLoop(monotonic)
    fired: list[str] = []
    began_at = loop.time()
    loop.call_later(20.0, fired.append, "too soon")
    loop.call_later(0.01, stand_still)
    loop.call_later(0.05, fired.append, "in time")
    loop.call_later(0.1, loop.stop)
    loop.run_forever()
    took_s = loop.time() - began_at
    loop.close()
    assert fired == ["in time"]
    assert 0.1 <= took_s < 15.0


def test_a_loop_that_nothing_holds_up_keeps_the_time():
    """Own time is monotonic time while the loop sleeps and works as it means to."""
    loop = OwnLoop()
    assert abs(loop.time() - time.monotonic()) < 1.0
    loop.close()
