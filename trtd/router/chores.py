"""What the router does by the clock: life signs, numbers, answers of slow readers, endpoints that could not be opened.

Also the announcement that a tenant is empty, because that has to wait for answers of slow readers.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

from trtd.core.dispatch import Dispatcher
from trtd.core.ids import TenantName
from trtd.core.tenancy import Gate
from trtd.errors import ExitCode
from trtd.observe import Logger
from trtd.router.front import Front
from trtd.router.link import Link
from trtd.router.stats import snapshot
from trtd.wire.control import RouterBeat, RouterStats, TenantIsEmpty, TenantStats
from trtd.wire.settings import RouterSettings

_STATM = Path("/proc/self/statm").open("rb", buffering=0)  # noqa: SIM115 - for good
"""Open all the time, so that a life sign needs no descriptor."""

STATS_EVERY_S = 1.0
RETRY_FIRST_S = 0.001
RETRY_MOST_S = 0.05
"""How often answers are offered again to clients that did not read: at first, and at longest."""


class Chores:
    """Keeps time for the loop.

    Args:
        settings: the router's.
        link: to the supervisor.
        dispatcher: whose numbers are told.
        front: whose parked answers are tried again.
        look_after: opens what was lost or could not be opened; called about once a second.
        log: for the memory limit.
        now: monotonic seconds.

    Attributes:
        turns: of the loop so far.
        due: when the next life sign or the next numbers are due.
    """

    def __init__(
        self,
        settings: RouterSettings,
        link: Link,
        dispatcher: Dispatcher,
        front: Front,
        look_after: Callable[[float], None],
        log: Logger,
        now: float,
    ) -> None:
        self.turns = 0
        self._settings = settings
        self._link = link
        self._dispatcher = dispatcher
        self._front = front
        self._look_after = look_after
        self._log = log
        self._beat_at = self._stats_at = self._retry_at = self.due = now
        self._retry_s = RETRY_FIRST_S
        self._told: dict[TenantName, TenantStats] = {}
        self._emptied: dict[TenantName, int] = {}

    def next_run(self) -> float:
        """The next instant at which `run` has something to do."""
        return min(self.due, self._retry_at) if self._front.late else self.due

    def run(self, now: float) -> ExitCode | None:
        """Do what is due; an exit code when the process has to be replaced.

        Raises:
            trtd.child.channel.ChannelClosed: the supervisor is gone.
        """
        if self._front.late and now >= self._retry_at:
            progress = sum(endpoint.retry_parked(now) for endpoint in list(self._front.late))
            self._retry_s = RETRY_FIRST_S if progress else min(2 * self._retry_s, RETRY_MOST_S)
            self._retry_at = now + self._retry_s
        for tenant, epoch in list(self._emptied.items()):
            del self._emptied[tenant]
            self.announce_empty(tenant, epoch)
        exit_code = None
        if now >= self._beat_at:
            self._beat_at = now + self._settings.beat_every_s
            exit_code = self._beat()
        if now >= self._stats_at:
            self._stats_at = now + STATS_EVERY_S
            self._look_after(now)
            for tenant in self._front.endpoints:
                self._tell_stats(tenant, must_arrive=False)
        self.due = min(self._beat_at, self._stats_at)
        return exit_code

    def announce_empty(self, tenant: TenantName, epoch: int) -> None:
        """Tell the supervisor that a drained tenant is empty, as soon as its slowest client has read its answer."""
        endpoint = self._front.endpoints.get(tenant)
        if endpoint is None or self._dispatcher.tenant(tenant).gate is not Gate.CLOSED:
            return
        if endpoint.has_parked:
            self._emptied[tenant] = epoch
            return
        self._tell_stats(tenant, must_arrive=True)
        self._link.tell(TenantIsEmpty(tenant, epoch))

    def _tell_stats(self, tenant: TenantName, *, must_arrive: bool) -> None:
        stats = snapshot(self._dispatcher.tenant(tenant), self._front.endpoints[tenant], time.monotonic())
        if stats == self._told.get(tenant):
            return
        message = RouterStats(self._settings.generation, stats)
        if must_arrive:
            self._link.tell(message)
            self._told[tenant] = stats
        elif self._link.mention(message):
            self._told[tenant] = stats

    def _beat(self) -> ExitCode | None:
        rss_bytes = resident_bytes()
        self._link.mention(RouterBeat(self._settings.generation, self.turns, rss_bytes))
        limit = self._settings.memory_limit_bytes
        if limit and rss_bytes > limit:
            self._log.error("memory.limit_exceeded", rss_bytes=rss_bytes, limit_bytes=limit)
            return ExitCode.TEMPORARY
        return None


def resident_bytes() -> int:
    """Resident memory of this process."""
    _STATM.seek(0)
    return int(_STATM.read().split()[1]) * resource.getpagesize()
