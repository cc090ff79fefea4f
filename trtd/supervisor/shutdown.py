"""How the daemon ends: drain everything, within a time; then cut what is left; a second signal ends all at once.

Cut means that the router answers what is left with a typed error, so that no client waits for an answer that cannot
come. A daemon that cannot serve at all ends by itself (`trtd.supervisor.vitals` finds that out).
"""

from __future__ import annotations

import asyncio

from trtd import observe
from trtd.core.faults import Fault, FaultKind
from trtd.core.fleet import Phase, ShutdownRequested
from trtd.core.ids import TenantName
from trtd.core.lifecycle import IN_SERVICE
from trtd.errors import ExitCode
from trtd.supervisor.loop import Supervisor
from trtd.wire.control import AvailabilitySet, WorkerRevoked

CUT_GRACE_S = 5.0
"""From the cut until everything is killed, on top of the patience with workers that stop."""
ASK_ROUTER_S = 1.0
MAX_LOGGED_IDS = 20
REASON = "the daemon is stopping"

log = observe.get_logger()


class Shutdown:
    """The end of a supervisor, begun by the first signal."""

    def __init__(self, supervisor: Supervisor, loop: asyncio.AbstractEventLoop) -> None:
        self._supervisor = supervisor
        self._loop = loop
        self._has_begun = False
        self._was_cut = False
        self._gave_up = False
        self._cutting: asyncio.Task[None] | None = None

    @property
    def exit_code(self) -> ExitCode:
        """OK when every accepted request got its answer in peace, TEMPORARY when something was cut.

        UNAVAILABLE when the daemon ends because it cannot serve.
        """
        if self._gave_up:
            return ExitCode.UNAVAILABLE
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
        self._loop.call_later(timeout_s, self._begin_cut)

    def give_up(self, cause: str) -> None:
        """The daemon cannot do its work: end at once, so that its host starts it anew.

        A process that the kernel does not let go of keeps nobody waiting here.
        """
        log.error("daemon.gave_up", cause=cause)
        self._has_begun = self._gave_up = True
        self._force()
        self._loop.call_later(CUT_GRACE_S, self._supervisor.stopped.set)

    def _unfinished(self) -> list[TenantName]:
        """Tenants that may still have requests without an answer."""
        tenants = self._supervisor.fleet.tenants.items()
        return [name for name, tenant in tenants if tenant.phase is not Phase.DRAINED and tenant.needs_workers]

    def _begin_cut(self) -> None:
        if not self._supervisor.stopped.is_set() and self._unfinished():
            self._was_cut = True
            self._cutting = self._loop.create_task(self._cut())

    async def _cut(self) -> None:
        """The time is up: what is left gets a typed error, which empties the tenants."""
        for name in self._unfinished():
            left = await self._supervisor.router.ask_unfinished(name, ASK_ROUTER_S)
            log.error(
                "daemon.drain_cut",
                tenant=name,
                unfinished=left.total if left else None,
                request_ids=list(left.request_ids[:MAX_LOGGED_IDS]) if left else [],
            )
            self._refuse_rest(name)
        self._loop.call_later(CUT_GRACE_S, self._force_rest)

    def _refuse_rest(self, name: TenantName) -> None:
        tenant = self._supervisor.fleet.tenants.get(name)
        if tenant is None:
            return
        # First the reason, so that what the workers give back is answered instead of being given out again.
        self._supervisor.router.tell(AvailabilitySet(name, False, REASON, None))
        for replica, worker in tenant.workers.items():
            child = self._supervisor.fleet.children[worker]
            if child.state in IN_SERVICE:
                cut = Fault(FaultKind.REQUESTED, REASON, sticky=False)
                self._supervisor.router.tell(WorkerRevoked(name, replica, child.generation, cut))

    def _force_rest(self) -> None:
        if self._unfinished():
            self._force()

    def _force(self) -> None:
        if not self._supervisor.stopped.is_set():
            self._was_cut = True
            self._supervisor.submit(ShutdownRequested(forced=True))
