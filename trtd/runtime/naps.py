"""How a thread waits for a run of the device: asleep for most of it, awake for the end. Pure: durations in, a nap out.

To be woken by the device costs a sleeping processor 0.2 to 0.4 ms (measured on a virtual machine with an H200), which
is as much as many runs take; to spin all the time costs a processor. So a thread naps by its own clock for as long as
its recent runs took at least, less a margin, and looks again and again only around their end.
"""

from __future__ import annotations

from collections import deque

SPIN_S = 200e-6
"""How long a thread looks again and again before it sleeps until it is woken."""
MARGIN_S = 150e-6
"""How much earlier than its shortest recent wait a nap ends; the clock wakes late by some of it."""
MIN_NAP_S = 20e-6
"""A shorter nap is not worth the call."""
RECENT = 8


class Naps:
    """The waits of one slot."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT)

    @property
    def nap_s(self) -> float:
        """Seconds to sleep before looking; 0 for runs that are over sooner, and until a run was seen."""
        nap_s = min(self._recent, default=0.0) - MARGIN_S
        return nap_s if nap_s >= MIN_NAP_S else 0.0

    def note(self, took_s: float) -> None:
        """A wait took so long. One that ended during its nap makes the next nap shorter by the margin."""
        self._recent.append(took_s)
