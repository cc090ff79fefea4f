"""Clients whose inputs end workers again and again: nothing more is taken of them for a while, and longer each time.

One odd input may happen to anybody: it is convicted and refused (`trtd.core.inflight`), and its client goes on. Whoever
sends one after the other, each a little different, would keep a tenant's workers dying for everybody else. So deaths
are counted by client. Beyond a few of them, within the time that poison is remembered for, each further one bars the
client for twice as long as the one before. A death is forgiven when a worker survives the same input after all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from trtd.core.ids import WorkerId

FREE_DEATHS = 4
"""Lone deaths of workers that a client may cause before it is barred: those of two convicted inputs."""

FIRST_BAR_S = 5.0

MAX_OFFENDERS = 256
"""Most clients remembered per tenant; the one that has been quiet for longest is forgotten first."""

MAX_DEATHS = 64
"""Most deaths remembered of one client; by then it is barred for the whole time."""


class Barred(NamedTuple):
    """One client of which nothing is taken."""

    owner: Hashable
    until: float
    deaths: int


class Offenders:
    """Who ended how many of one tenant's workers.

    Attributes:
        bars: until when nothing is taken of a client; to be read only. Empty where nobody is barred.
    """

    def __init__(self) -> None:
        self.bars: dict[Hashable, float] = {}
        self._deaths: OrderedDict[Hashable, dict[WorkerId, float]] = OrderedDict()

    def note(self, owner: Hashable, worker: WorkerId, now: float, window_s: float) -> bool:
        """A worker died with nothing but a request of this client; whether the client is barred for it.

        Args:
            owner: the client.
            worker: the life that ended.
            now: monotonic seconds.
            window_s: how long a death counts; no bar is longer.
        """
        earlier = self._deaths.pop(owner, {})
        deaths = {life: at for life, at in earlier.items() if at > now - window_s}
        deaths[worker] = now
        while len(deaths) > MAX_DEATHS:
            del deaths[next(iter(deaths))]
        self._deaths[owner] = deaths
        if len(self._deaths) > MAX_OFFENDERS:
            forgotten, _ = self._deaths.popitem(last=False)
            self.bars.pop(forgotten, None)
        beyond = len(deaths) - FREE_DEATHS
        if beyond <= 0:
            return False
        self.bars[owner] = now + min(window_s, FIRST_BAR_S * 2.0 ** (beyond - 1))
        return True

    def forgive(self, owner: Hashable, workers: Iterable[WorkerId]) -> None:
        """A worker survived the input that was suspected for these deaths. A bar that runs already goes on."""
        deaths = self._deaths.get(owner)
        if deaths is None:
            return
        for worker in workers:
            deaths.pop(worker, None)
        if not deaths:
            del self._deaths[owner]

    def deaths_of(self, owner: Hashable) -> tuple[WorkerId, ...]:
        """The lives that the client ended, as far as they are remembered."""
        return tuple(self._deaths.get(owner, ()))

    def barred_s(self, owner: Hashable, now: float) -> float:
        """For how long nothing more is taken of the client; 0 where it is not barred."""
        until = self.bars.get(owner)
        if until is None:
            return 0.0
        if until <= now:
            del self.bars[owner]
            return 0.0
        return until - now

    def barred(self, now: float) -> list[Barred]:
        """Everybody who is barred now, the longest first."""
        found = [Barred(owner, until, len(self._deaths.get(owner, ()))) for owner, until in self.bars.items()]
        return sorted((one for one in found if one.until > now), key=lambda one: -one.until)

    def clear(self) -> None:
        """Forget everything."""
        self.bars.clear()
        self._deaths.clear()
