"""Looks at the daemon's vital signs about once a second, and ends the daemon when `trtd.core.vitals` says so."""

from __future__ import annotations

import asyncio

from trtd.core.fleet import ROUTER, Phase
from trtd.core.lifecycle import State
from trtd.core.vitals import Signs, Vitals
from trtd.supervisor.loop import Supervisor
from trtd.supervisor.shutdown import Shutdown
from trtd.supervisor.status import health_of

LOOK_EVERY_S = 1.0


async def watch(supervisor: Supervisor, shutdown: Shutdown) -> None:
    """Look until the daemon has to end, or ends for another reason."""
    loop = asyncio.get_running_loop()
    health = supervisor.plan.config.health
    vitals = Vitals(
        give_up_after_s=health.give_up_after_s,
        sound_after_s=supervisor.plan.router_restarts.healthy_after_s,
        watches_tenants=health.give_up_without_tenants,
        began_at=loop.time(),
    )
    while not supervisor.fleet.is_stopping:
        cause = vitals.look(signs_of(supervisor, loop.time()), loop.time())
        if cause is not None:
            shutdown.give_up(cause)
            return
        await asyncio.sleep(min(LOOK_EVERY_S, health.give_up_after_s / 4 or LOOK_EVERY_S))


def signs_of(supervisor: Supervisor, now: float) -> Signs:
    """What the fleet shows of the daemon as a whole. Drained tenants are not meant to serve, so they are no failure."""
    fleet = supervisor.fleet
    router = fleet.children[ROUTER]
    fault = router.fault if router.state is State.QUARANTINED else None
    healths = [
        health_of(fleet, supervisor.facts, tenant, now)
        for name, tenant in fleet.tenants.items()
        if tenant.phase is Phase.SERVING and supervisor.is_required(name)
    ]
    return Signs(
        router_ready_s=now - router.since if router.state is State.READY else None,
        is_any_ready=not healths or any(health in {"ready", "degraded"} for health in healths),
        are_all_hopeless=all(health == "unavailable" for health in healths),
        router_failure=" ".join(fault.message.split()) if fault is not None and fault.permanent else "",
    )
