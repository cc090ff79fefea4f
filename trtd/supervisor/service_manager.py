"""What the service manager is told of the daemon, and when: ready, reloading, stopping, one line of status, alive.

Nothing here decides about the daemon; it reads the fleet after each change and at a steady beat. It runs in the
supervisor's loop on purpose: a loop that stands still feeds no watchdog. The datagrams are `trtd.supervisor.notify`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from trtd import observe
from trtd.core.fleet import ROUTER, Fleet, Phase
from trtd.core.lifecycle import IN_SERVICE, State
from trtd.supervisor.loop import Supervisor
from trtd.supervisor.notify import Notifier
from trtd.wire.status import summary

LOOK_EVERY_S = 2.0
"""Between two looks at a quiet fleet; a watchdog makes it shorter."""
LOOKS_PER_WATCHDOG = 4
"""Looks within the watchdog's patience, so that one that is late costs nothing."""
STATUS_EVERY_S = 1.0
OVERDUE_S = 2.0
"""A deadline of the fleet that nobody heeded for so long means that supervision has stopped, though the loop turns."""
EXTENSION_S = 30.0
"""How much more time is asked for while the daemon starts or drains; asked again at each look."""
MAX_UNSAID = 8

log = observe.get_logger()


def has_settled(fleet: Fleet, required: Collection[str]) -> bool:
    """Whether the start is over: the router is ready, and each required tenant serves, or had its try and failed.

    A tenant that cannot work is not waited for, because the others serve; what it lacks is in the status.
    """
    if fleet.children[ROUTER].state is not State.READY:
        return False
    for name, tenant in fleet.tenants.items():
        if name not in required or tenant.phase is not Phase.SERVING:
            continue
        workers = [fleet.children[place.name] for place in tenant.members]
        if not any(child.state in IN_SERVICE or child.last_fault is not None for child in workers):
            return False
    return True


def overdue_s(fleet: Fleet, now: float) -> float:
    """For how long the fleet has been waiting to be told that an instant has come; 0 while nothing is due.

    The router's next beat is among those instants: a silent router is either replaced in time or counted here.
    """
    deadline = fleet.next_deadline()
    return 0.0 if deadline is None else max(0.0, now - deadline)


class ServiceManager:
    """Keeps the service manager informed, from the supervisor's loop.

    Args:
        notifier: how it is spoken to.
        supervisor: whose fleet is looked at.
        loop: gives the time.
    """

    def __init__(self, notifier: Notifier, supervisor: Supervisor, loop: asyncio.AbstractEventLoop) -> None:
        self._notifier = notifier
        self._supervisor = supervisor
        self._loop = loop
        self._look_every_s = LOOK_EVERY_S
        if notifier.watchdog_s is not None:
            self._look_every_s = min(LOOK_EVERY_S, notifier.watchdog_s / LOOKS_PER_WATCHDOG)
        self._is_ready = False
        self._is_stopping = False
        self._status = ""
        self._status_at = float("-inf")
        self._unsaid: deque[dict[str, str | int]] = deque(maxlen=MAX_UNSAID)
        self._complaints = observe.RateLimit(60.0)

    async def attend(self) -> None:
        """Look at the fleet after each change and at each beat, until cancelled; at once over where nobody listens."""
        while self._notifier.is_heard:
            self._look()
            await self._supervisor.changed(self._look_every_s)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that the configuration is read again, and afterwards, in either case, that the daemon serves on."""
        if not self._is_ready:
            yield
            return
        self._say(RELOADING=1, MONOTONIC_USEC=round(time.monotonic() * 1e6))
        try:
            yield
        finally:
            self._say(READY=1)

    def _look(self) -> None:
        now = self._loop.time()
        fleet = self._supervisor.fleet
        while self._unsaid and self._notifier.tell(**self._unsaid[0]):
            self._unsaid.popleft()
        if fleet.is_stopping and not self._is_stopping:
            self._is_stopping = True
            self._say(STOPPING=1)
        if not self._is_ready and not self._is_stopping:
            required = {name for name, table in self._supervisor.plan.config.tenants.items() if table.required}
            if has_settled(fleet, required):
                self._is_ready = True
                log.info("daemon.became_ready")
                self._say(READY=1)
        if self._is_stopping or not self._is_ready:
            self._notifier.tell(EXTEND_TIMEOUT_USEC=round(EXTENSION_S * 1e6))
        self._tell_status(now)
        if self._notifier.watchdog_s is not None:
            self._feed_watchdog(fleet, now)

    def _tell_status(self, now: float) -> None:
        if now - self._status_at < STATUS_EVERY_S:
            return
        status = summary(self._supervisor.status())
        if status != self._status and self._notifier.tell(STATUS=status):
            self._status = status
            self._status_at = now

    def _feed_watchdog(self, fleet: Fleet, now: float) -> None:
        late_s = overdue_s(fleet, now)
        if late_s <= OVERDUE_S:
            self._notifier.tell(WATCHDOG=1)
            return
        held_back = self._complaints.take("overdue", now)
        if held_back is not None:
            log.error("watchdog.withheld", overdue_s=round(late_s, 3), held_back=held_back)

    def _say(self, **assignments: str | int) -> None:
        """Tell a change of state, which has to arrive: what is not taken now is said again at the next look."""
        self._status_at = float("-inf")
        if self._unsaid or not self._notifier.tell(**assignments):
            self._unsaid.append(assignments)
