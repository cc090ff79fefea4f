"""What operators can ask for: one handler for each row of `trtd.wire.operator.OPERATOR_COMMANDS`.

A handler turns a command into events of the fleet and waits until what was asked for is so. An operator who goes away
ends his own waiting and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from trtd.core.fleet import DrainRequested, Phase, ResumeRequested, TenantRestartRequested
from trtd.core.fleet.tenant import HOPELESS
from trtd.core.ids import TenantName
from trtd.core.lifecycle import State
from trtd.errors import DeadlineExceeded, NotAllowed, Unavailable, Usage
from trtd.supervisor.control import CommandFailed, Handler, Progress
from trtd.supervisor.loop import Supervisor
from trtd.wire.control import MakeFault, PoisonReleased
from trtd.wire.tensorrt import FAULTS

PROGRESS_EVERY_S = 0.5
ASK_ROUTER_S = 2.0
RESTART_TIMEOUT_S = 150.0

Args = dict[str, Any]
Answer = dict[str, Any]


class Commands:
    """The handlers.

    Args:
        supervisor: acts on it through events, and reads its state.
        reload: reads the configuration again and applies it; returns what changed or raises `InvalidConfig`.
    """

    def __init__(self, supervisor: Supervisor, reload: Callable[[], Awaitable[Answer]]) -> None:
        self._supervisor = supervisor
        self._reload = reload
        self._loop = asyncio.get_running_loop()

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their commands."""
        return {
            "status": self.status,
            "drain": self.drain,
            "resume": self.resume,
            "restart": self.restart,
            "fault": self.fault,
            "reload": self.reload,
        }

    async def status(self, args: Args, _progress: Progress) -> Answer:
        """The status record, of one tenant or all."""
        only = args["tenant"]
        if only is not None:
            self._known(only)
        return dict(self._supervisor.status(only))

    async def drain(self, args: Args, progress: Progress) -> Answer:
        """Close the gates and wait until the last answer is out and the workers are gone."""
        tenants = self._chosen(args)
        timeout_s = args["timeout_s"] or self._supervisor.plan.config.daemon.drain_timeout_s
        for tenant in tenants:
            self._supervisor.submit(DrainRequested(tenant))

        def left() -> list[TenantName]:
            return [tenant for tenant in tenants if self._phase(tenant) not in (Phase.DRAINED, None)]

        if not await self._wait(left, timeout_s, progress):
            raise await self._drain_failed(left(), timeout_s)
        return {"tenants": {tenant: str(self._phase(tenant) or "removed") for tenant in tenants}}

    async def resume(self, args: Args, _progress: Progress) -> Answer:
        """Open the gates, start the workers, forget which inputs ended workers."""
        tenants = self._chosen(args)
        if self._supervisor.fleet.is_stopping:
            raise Unavailable("the daemon is stopping")
        removing = [tenant for tenant in tenants if self._phase(tenant) is Phase.REMOVING]
        if removing and not args["all"]:
            raise Usage(f"tenant {removing[0]} is being removed: the configuration no longer names it")
        for tenant in tenants:
            self._supervisor.submit(ResumeRequested(tenant))
            self._supervisor.router.tell(PoisonReleased(tenant))
        return {"tenants": {tenant: str(self._phase(tenant) or "removed") for tenant in tenants}}

    async def restart(self, args: Args, progress: Progress) -> Answer:
        """Replace a tenant's workers one after the other and wait until the new ones are ready."""
        tenant = self._known(args["tenant"])
        phase = self._phase(tenant)
        if phase is not Phase.SERVING:
            raise Usage(f"tenant {tenant} is {phase}; only a serving tenant can be restarted")
        self._supervisor.submit(TenantRestartRequested(tenant))

        def left() -> list[str]:
            return self._not_renewed(tenant)

        timeout_s = args["timeout_s"] or RESTART_TIMEOUT_S
        if not await self._wait(left, timeout_s, progress):
            raise DeadlineExceeded(f"not ready again within {timeout_s:g} s: {', '.join(left())}")
        return {"tenants": {tenant: "restarted"}}

    async def fault(self, args: Args, _progress: Progress) -> Answer:
        """Make a fault in every live worker of a tenant; what comes of it, status and log tell."""
        tenant = self._known(args["tenant"])
        fault = args["fault"]
        if fault not in FAULTS:
            raise Usage(f"unknown fault {fault!r}; there are: {', '.join(FAULTS)}")
        table = self._supervisor.plan.config.tenants.get(tenant)
        if table is None or not table.debug.allow_faults:
            raise NotAllowed(f"tenants.{tenant}.debug.allow_faults is off")
        told = []
        for _, name in sorted(self._supervisor.fleet.tenants[tenant].workers.items()):
            generation = self._supervisor.fleet.children[name].generation
            if self._supervisor.processes.tell(name, generation, MakeFault(fault)):
                told.append(name)
        return {"tenants": {tenant: fault}, "workers": told}

    async def reload(self, _args: Args, _progress: Progress) -> Answer:
        """Read the configuration again and apply the difference."""
        return await self._reload()

    # Helpers

    def _known(self, tenant: str) -> TenantName:
        tenants = self._supervisor.fleet.tenants
        if tenant not in tenants:
            raise Usage(f"there is no tenant {tenant!r}; there are {', '.join(sorted(tenants)) or 'none'}")
        return TenantName(tenant)

    def _chosen(self, args: Args) -> list[TenantName]:
        if bool(args["all"]) == (args["tenant"] is not None):
            raise Usage("name a tenant, or ask for all")
        return sorted(self._supervisor.fleet.tenants) if args["all"] else [self._known(args["tenant"])]

    def _phase(self, tenant: TenantName) -> Phase | None:
        record = self._supervisor.fleet.tenants.get(tenant)
        return record.phase if record else None

    async def _wait(self, left: Callable[[], Iterable[str]], timeout_s: float, progress: Progress) -> bool:
        """Wait until nothing is left, and tell what is; False when the time is up."""
        until = self._loop.time() + timeout_s
        tell_at = self._loop.time()
        while names := list(left()):
            now = self._loop.time()
            if now >= until:
                return False
            if now >= tell_at:
                await progress(self._progress(names))
                tell_at = now + PROGRESS_EVERY_S
            await self._supervisor.changed(min(until, tell_at) - now)
        return True

    def _progress(self, names: list[str]) -> Answer:
        tenants = {name.partition("/")[0] for name in names}
        totals = [seen.totals for name, seen in self._supervisor.facts.tenants.items() if name in tenants]
        queued, leased = sum(total.queued for total in totals), sum(total.leased for total in totals)
        return {
            "waiting_for": ", ".join(names),
            "queued": queued,
            "leased": leased,
            "left": len(names) + queued + leased,
        }

    async def _drain_failed(self, tenants: list[TenantName], timeout_s: float) -> CommandFailed:
        """The error of a drain whose time is up: it goes on, and these requests have no answer yet."""
        answers = await asyncio.gather(
            *(self._supervisor.router.ask_unfinished(tenant, ASK_ROUTER_S) for tenant in tenants)
        )
        unfinished = {
            tenant: {"request_ids": list(answer.request_ids), "total": answer.total}
            for tenant, answer in zip(tenants, answers, strict=True)
            if answer is not None
        }
        total = sum(answer.total for answer in answers if answer is not None)
        error = DeadlineExceeded(
            f"{', '.join(tenants)} not drained within {timeout_s:g} s, {total} requests unfinished; the drain goes on"
        )
        return CommandFailed(error, {"unfinished": unfinished})

    def _not_renewed(self, tenant: TenantName) -> list[str]:
        """Workers that are not ready in the version asked for.

        Raises:
            trtd.errors.Unavailable: one of them will not become ready by itself.
        """
        record = self._supervisor.fleet.tenants.get(tenant)
        if record is None or record.phase is not Phase.SERVING:
            raise Unavailable(f"tenant {tenant} was drained or removed meanwhile")
        outdated = set(self._supervisor.fleet.outdated_workers(tenant))
        left = []
        for replica, name in sorted(record.workers.items()):
            child = self._supervisor.fleet.children[name]
            if child.state in HOPELESS:
                cause = child.last_fault.message if child.last_fault else "no cause is known"
                raise Unavailable(f"worker {name} is {child.state}: {cause}")
            if not record.is_surplus(replica) and (name in outdated or child.state is not State.READY):
                left.append(name)
        return left
