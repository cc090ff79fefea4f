"""Whether to look for what comes next for a moment, or to sleep at once.

A sleep costs more than the time that it takes to wake up: meanwhile the processor forgets the code and the data of the
one that sleeps, and what follows takes several times as long (measured: 25 us of work became 100 us). Where something
comes within a fraction of a millisecond, looking for it is faster, and takes no more of the processor in the end.

The rule is that of Linux' haltpoll governor in its simplest form: the last wait tells what the next one will be like.
It holds on a processor that nobody else wants. Who looks yields between two looks (sched_yield(2)); if it gets the
processor back late, others do want it, and a sleeper that is woken is served sooner than somebody who yields.

Pure: who looks, and at what, is left to the loops of the router and of a worker.
"""

from __future__ import annotations

CROWDED_S = 0.0007
"""A yield that took so long was made use of by others, for a slice of the scheduler. Our own threads, which pass a
message on, need less."""
CROWDED_FOR_S = 0.1
"""How long nothing is looked for after that: a yield to others may last 3 ms, so it is tried 10 times a second."""


class BusyPoll:
    """Decides for one kind of wait.

    A loop that waits for several things at different paces, such as answers and requests, has one for each, or the
    slow ones hide what is known of the fast ones.
    """

    __slots__ = ("_crowded_until", "_is_near", "_limit_s")

    def __init__(self, limit_s: float) -> None:
        """Know nothing yet, and sleep.

        Args:
            limit_s: longest time to look in vain; 0 never looks.
        """
        self._limit_s = limit_s
        self._is_near = False
        self._crowded_until = 0.0

    def window_s(self, now: float) -> float:
        """How long to look before sleeping; 0 sleeps at once."""
        return self._limit_s if self._is_near and now >= self._crowded_until else 0.0

    def note_waited(self, seconds: float) -> None:
        """A wait is over after so long, whether it was slept or not."""
        self._is_near = seconds < self._limit_s

    def note_yielded(self, seconds: float, now: float) -> bool:
        """The processor was given to whoever wants it, and came back after so long; whether to go on looking."""
        if seconds < CROWDED_S:
            return True
        self._crowded_until = now + CROWDED_FOR_S
        return False
