"""When a dead child may be started again: the backoff delay, the death tallies, and the verdict over a window.

There are two tallies, each with a budget of its own: of the deaths that the child's tenant pays for, and of those that
are blamed on a device or on those who share it. The second keeps an ill device, or a worker that lies about one, from
being started for ever, without touching the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Limits on automatic restarts of one worker.

    The first restart after a healthy period is immediate, then the delay doubles from `base_s` to `cap_s` with jitter.

    Attributes:
        base_s: delay before the second restart.
        cap_s: longest delay, jitter included.
        jitter: part of the delay, up and down, that a random draw decides (0.2 is plus or minus a fifth).
        healthy_after_s: a worker READY for so long starts anew with immediate restarts.
        budget: deaths within `window_s` that are still restarted; one more suspends restarts. Those that are blamed on
            devices are counted apart.
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


class Death(NamedTuple):
    """One death that counts: when it was, and which life it ended."""

    at: float
    generation: int


MAX_DOUBLINGS = 64
"""Beyond this the delay has long reached any cap; it keeps the power of two within a float."""


def backoff_s(policy: RestartPolicy, failures: int, draw: float) -> float:
    """Seconds to wait before the restart that follows the given number of failures.

    Args:
        policy: the limits.
        failures: deaths since the last healthy period, this one included; the first is restarted at once.
        draw: random number in [0, 1) that decides the jitter.
    """
    if failures <= 1:
        return 0.0
    delay_s = min(policy.cap_s, policy.base_s * 2.0 ** min(failures - 2, MAX_DOUBLINGS))
    return min(policy.cap_s, delay_s * (1.0 + policy.jitter * (2.0 * draw - 1.0)))


def tally_death(policy: RestartPolicy, deaths: tuple[Death, ...], death: Death) -> tuple[Death, ...]:
    """The death tally with one more death; what left the window is dropped, and no more is kept than the verdict needs.

    Args:
        policy: the limits.
        deaths: the earlier ones, oldest first.
        death: this one.
    """
    opens_at = death.at - policy.window_s
    recent = [earlier for earlier in deaths if earlier.at > opens_at]
    recent.append(death)
    return tuple(recent[-(policy.budget + 1) :])


def is_over_budget(policy: RestartPolicy, deaths: tuple[Death, ...]) -> bool:
    """Whether restarts are to be suspended, given the tally as `tally_death` left it."""
    return len(deaths) > policy.budget
