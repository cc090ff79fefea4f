"""How the daemon ends: drain everything, within a time; then cut what is left; a second signal ends all at once.

Cut means that the router answers what is left with a typed error, so that no client waits for an answer that cannot
come.
"""

from __future__ import annotations

import asyncio

from trtd import observe
from trtd.core.faults import FaultKind
from trtd.core.fleet import Phase, ShutdownRequested
from trtd.core.ids import TenantName
from trtd.core.lifecycle import IN_SERVICE
from trtd.errors import ExitCode
from trtd.supervisor.loop import Supervisor
from trtd.wire.control import AvailabilitySet, WorkerRevoked

CUT_GRACE_S = 5.0
"""From the cut until everything is killed, on top of the patience with workers that stop."""
REASON = "the daemon is stopping"

log = observe.get_logger()


class Shutdown:
    """The end of a supervisor, begun by the first signal."""

    def __init__(self, supervisor: Supervisor, loop: asyncio.AbstractEventLoop) -> None:
        self._supervisor = supervisor
        self._loop = loop
        self._has_begun = False
        self._was_cut = False

    @property
    def exit_code(self) -> ExitCode:
        """OK when every accepted request got its answer in peace, TEMPORARY when something was cut."""
        return ExitCode.TEMPORARY if self._was_cut else ExitCode.OK

    def request(self, signal_name: str) -> None:
        """A signal asks for the end: the first one politely, the second one at once."""
        if self._has_begun:
            log.warning("daemon.stop_forced", signal=signal_name)
            self._force()
            return
        self._has_begun = True
        timeout_s = self._supervisor.plan.config.daemon.drain_timeout_s
        log.info("daemon.stop_begun", signal=signal_name, drain_timeout_s=timeout_s)
        self._supervisor.submit(ShutdownRequested())
        self._loop.call_later(timeout_s, self._cut)

    def _unfinished(self) -> dict[TenantName, int]:
        """Requests that each tenant still has, as the router last said."""
        facts = self._supervisor.facts.tenants
        tenants = self._supervisor.fleet.tenants.items()
        draining = [name for name, tenant in tenants if tenant.phase is not Phase.DRAINED and tenant.needs_workers]
        return {name: facts[name].totals.queued + facts[name].totals.leased for name in draining if name in facts}

    def _cut(self) -> None:
        """The time is up: what is left gets a typed error, which empties the tenants."""
        unfinished = self._unfinished()
        if self._supervisor.stopped.is_set() or not unfinished:
            return
        self._was_cut = True
        log.error("daemon.drain_cut", unfinished=unfinished)
        for name in unfinished:
            # First the reason, so that what the workers give back is answered instead of being given out again.
            self._supervisor.router.tell(AvailabilitySet(name, False, REASON, None))
            for replica, worker in self._supervisor.fleet.tenants[name].workers.items():
                child = self._supervisor.fleet.children[worker]
                if child.state in IN_SERVICE:
                    self._supervisor.router.tell(
                        WorkerRevoked(name, replica, child.generation, FaultKind.REQUESTED, REASON)
                    )
        self._loop.call_later(CUT_GRACE_S, self._force_rest)

    def _force_rest(self) -> None:
        if self._unfinished():
            self._force()

    def _force(self) -> None:
        if not self._supervisor.stopped.is_set():
            self._was_cut = True
            self._supervisor.submit(ShutdownRequested(forced=True))
