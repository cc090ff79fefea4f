"""How the router and the workers wait: they look for a moment where that pays, then they sleep.

Whether it pays is decided in `trtd.core.polling`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from trtd.core.polling import BusyPoll

T = TypeVar("T")


def wait(
    poll: BusyPoll,
    timeout_s: float | None,
    look: Callable[[], T],
    sleep: Callable[[float | None], T],
    may_look: Callable[[], bool] = lambda: True,
) -> T:
    """Wait until there is something, at most for a time.

    Args:
        poll: for this kind of wait; it learns from the outcome.
        timeout_s: longest wait; None for ever.
        look: what there is, without waiting; false for nothing.
        sleep: what there is, waiting at most for the time that it is given.
        may_look: asked before each look; once it says no, the rest is slept.

    Returns:
        What `look` or `sleep` gave.
    """
    began_at = now = time.monotonic()
    window_s = poll.window_s(now)
    until = now + (window_s if timeout_s is None else min(timeout_s, window_s))
    is_alone = True
    while is_alone and now < until and may_look():
        if found := look():
            break
        os.sched_yield()
        before, now = now, time.monotonic()
        is_alone = poll.note_yielded(now - before, now)
    else:
        found = sleep(timeout_s)
    poll.note_waited(time.monotonic() - began_at)
    return found
