"""When a dead worker may be started again: the backoff delay, the death tally, and the verdict over a window."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Limits on automatic restarts of one worker.

    The first restart after a healthy period is immediate, then the delay doubles from `base_s` to `cap_s` with jitter.

    Attributes:
        base_s: delay before the second restart.
        cap_s: longest delay.
        jitter: part of the delay, up and down, that a random draw decides (0.2 is plus or minus a fifth).
        healthy_after_s: a worker READY for so long starts anew with immediate restarts.
        budget: deaths within `window_s` that are still restarted; one more suspends restarts.
        window_s: length of the window.
        probe_after_s: a suspended worker is tried once more after so long; 0 leaves it to the operator.
    """

    base_s: float = 0.1
    cap_s: float = 30.0
    jitter: float = 0.2
    healthy_after_s: float = 60.0
    budget: int = 10
    window_s: float = 60.0
    probe_after_s: float = 60.0
