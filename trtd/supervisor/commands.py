"""What operators can ask for: one handler for each row of `trtd.wire.operator.OPERATOR_COMMANDS`.

A handler turns a command into events of the fleet and waits until what was asked for is so. An operator who goes away
ends his own waiting and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from trtd.core.fleet import DrainRequested, Phase, ResumeRequested, TenantRestartRequested, TenantSpec
from trtd.core.ids import TenantName
from trtd.errors import DeadlineExceeded, NotAllowed, Unavailable, Usage
from trtd.supervisor.control import CommandFailed, Handler, Progress
from trtd.supervisor.loop import Supervisor
from trtd.supervisor.status import needs_gpu
from trtd.wire.control import MakeFault, PoisonReleased
from trtd.wire.tensorrt import FAULTS

PROGRESS_EVERY_S = 0.5
ASK_ROUTER_S = 2.0
REPLACED_TIMEOUT_S = 150.0
"""Patience of an operator who names none, for each worker of the largest tenant: they are replaced one at a time."""
STOPPING_HINT = "Wait for its end, and start it again."
MAX_TOLD = 3
"""Tenants whose failure stands in the error's one line; the details name all."""

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
        self._readings: set[asyncio.Future[Answer]] = set()

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
            raise Unavailable("the daemon is stopping", hint=STOPPING_HINT)
        removing = [tenant for tenant in tenants if self._phase(tenant) is Phase.REMOVING]
        if removing and not args["all"]:
            raise Usage(f"tenant {removing[0]} is being removed: the configuration no longer names it", hint="")
        for tenant in tenants:
            self._supervisor.submit(ResumeRequested(tenant))
            self._supervisor.router.tell(PoisonReleased(tenant))
        return {"tenants": {tenant: str(self._phase(tenant) or "removed") for tenant in tenants}}

    async def restart(self, args: Args, progress: Progress) -> Answer:
        """Replace a tenant's workers one after the other and wait until the new ones have taken over."""
        tenant = self._known(args["tenant"])
        phase = self._phase(tenant)
        if phase is Phase.DRAINED:
            text = f"tenant {tenant} is drained and has no worker to replace"
            raise Usage(text, hint=f"`trtd resume {tenant}` starts them.")
        if phase is not Phase.SERVING:
            raise Usage(f"tenant {tenant} is {phase}; only a serving tenant can be restarted", hint="")
        self._supervisor.submit(TenantRestartRequested(tenant))
        await self._replaced([tenant], args["timeout_s"], progress)
        return {"tenants": {tenant: "restarted"}}

    async def fault(self, args: Args, _progress: Progress) -> Answer:
        """Make a fault in every live worker of a tenant; what comes of it, status and log tell."""
        tenant = self._known(args["tenant"])
        fault = args["fault"]
        if fault not in FAULTS:
            raise Usage(f"unknown fault {fault!r}; there are: {', '.join(FAULTS)}")
        table = self._supervisor.plan.config.tenants.get(tenant)
        if table is None or not table.debug.allow_faults:
            text = f"tenants.{tenant}.debug.allow_faults is off"
            raise NotAllowed(text, hint="Whoever writes the configuration can allow faults for drills.")
        if not needs_gpu(table):
            raise Usage(f"tenant {tenant} runs on {table.runtime}, which has no device to make {fault!r} on", hint="")
        told = []
        for _, name in sorted(self._supervisor.fleet.tenants[tenant].workers.items()):
            generation = self._supervisor.fleet.children[name].generation
            if self._supervisor.processes.tell(name, generation, MakeFault(fault)):
                told.append(name)
        return {"tenants": {tenant: fault}, "workers": told}

    async def reload(self, args: Args, progress: Progress) -> Answer:
        """Read the configuration again, apply the difference, and wait until the workers obey it."""
        before = self._supervisor.fleet.specs()
        answer = await self._read_again(progress)
        tenants = self._supervisor.fleet.tenants
        waited_for = [
            name
            for name, tenant in sorted(tenants.items())
            if tenant.phase is Phase.SERVING and (tenant.outdated or not _wants_the_same(before.get(name), tenant.spec))
        ]
        try:
            await self._replaced(waited_for, args["timeout_s"], progress)
        except CommandFailed as failed:
            raise CommandFailed(failed.cause, {**answer, **failed.details}) from None
        return answer

    # Helpers

    async def _read_again(self, progress: Progress) -> Answer:
        """Reload, and tell who waits that disks and account databases take their time."""
        reading = asyncio.ensure_future(self._reload())
        self._readings.add(reading)
        reading.add_done_callback(self._has_read)
        while not (await asyncio.wait([reading], timeout=PROGRESS_EVERY_S))[0]:
            await progress({"waiting_for": "the files of the configuration"})
        return reading.result()

    def _has_read(self, reading: asyncio.Future[Answer]) -> None:
        self._readings.discard(reading)
        if not reading.cancelled():
            # Who asked may be gone; the log has it.
            reading.exception()

    def _known(self, tenant: str) -> TenantName:
        tenants = self._supervisor.fleet.tenants
        if tenant not in tenants:
            raise Usage(f"there is no tenant {tenant!r}; there are {', '.join(sorted(tenants)) or 'none'}", hint="")
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
            f"{', '.join(tenants)} not drained within {timeout_s:g} s, {total} requests unfinished; the drain goes on",
            hint="`trtd status` shows what is left; `trtd resume` takes the drain back.",
        )
        return CommandFailed(error, {"unfinished": unfinished})

    async def _replaced(self, tenants: list[TenantName], timeout_s: float | None, progress: Progress) -> None:
        """Wait until the workers of these tenants are what was wished, or it is known that some will not be.

        Raises:
            CommandFailed: `Unavailable` with the reason of each tenant in which it failed, or `DeadlineExceeded`.
        """
        fleet = self._supervisor.fleet
        if timeout_s is None:
            timeout_s = REPLACED_TIMEOUT_S * max((fleet.tenants[name].spec.replicas for name in tenants), default=1)
        failures: dict[str, str] = {}

        def left() -> list[str]:
            names: list[str] = []
            failures.clear()
            for name in tenants:
                tenant = fleet.tenants.get(name)
                if tenant is None or tenant.phase is not Phase.SERVING:
                    failures[name] = "was drained or removed meanwhile"
                    continue
                state = fleet.progress(name)
                if state.failure:
                    failures[name] = state.failure
                else:
                    names += state.left
            return names

        if not await self._wait(left, timeout_s, progress):
            raise CommandFailed(
                DeadlineExceeded(f"not replaced within {timeout_s:g} s, and it goes on: {', '.join(left())}"), {}
            )
        if failures:
            told = [f"tenant {name}: {reason}" for name, reason in failures.items()]
            more = f"; and {len(told) - MAX_TOLD} more" if len(told) > MAX_TOLD else ""
            raise CommandFailed(Unavailable("; ".join(told[:MAX_TOLD]) + more), {"failed": dict(failures)})


def _wants_the_same(before: TenantSpec | None, after: TenantSpec) -> bool:
    """Whether a change of the configuration asks nothing of a tenant's workers."""
    return before is not None and (before.worker_digest, before.replicas) == (after.worker_digest, after.replicas)
