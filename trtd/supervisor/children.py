"""Between the fleet and the processes: a child's wishes become processes, what a child says becomes events.

A child is not believed more than it has to be: it runs code that came with a model. Each message has to be of a kind
that such a child sends, and of its own generation; what its word about its own end is worth is in `trtd.core.belief`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from trtd import observe
from trtd.core import lifecycle
from trtd.core.belief import believe_router, believe_worker
from trtd.core.faults import ExitStatus, Fault, FaultKind
from trtd.core.fleet import ROUTER, ChildEffect, ChildEvent, Fleet, FleetEvent, Role, TenantEmptied
from trtd.core.ids import TenantName
from trtd.core.lifecycle import Child, Desired, State
from trtd.errors import Blame, OutOfMemory, TrtdError
from trtd.supervisor import narration
from trtd.supervisor.cgroup import Delegation, WorkerGroup
from trtd.supervisor.facts import Facts, Trials
from trtd.supervisor.processes import Processes
from trtd.supervisor.router_link import RouterLink
from trtd.supervisor.spawn import ChildOrder, is_permanent
from trtd.wire import control
from trtd.wire.control import in_lines
from trtd.wire.headers import one_line
from trtd.wire.settings import Trial

WORKER_SAYS = (
    control.Hello,
    control.TrialBegun,
    control.TrialEnded,
    control.WorkerReady,
    control.WorkerBeat,
    control.FaultReport,
)
ROUTER_SAYS = (
    control.Hello,
    control.RouterReady,
    control.RouterBeat,
    control.RouterStats,
    control.FaultReport,
    control.TenantIsEmpty,
    control.WorkerIsEmpty,
    control.WorkerMisbehaved,
    control.ClientBlamed,
    control.Unfinished,
)
MAX_FIRST_WORDS = 2000
"""Characters that are logged of what a child wrote that cannot start; the end of it says why."""
ABOUT_WORKERS = (control.WorkerIsEmpty, control.WorkerMisbehaved)
"""Of these the generation is a worker's, not the router's own."""

WANTED = (str(FaultKind.REQUESTED), "nobody")
"""Cause and blame of a restart that somebody asked for."""

HELD_BACK = (State.BACKOFF, State.QUARANTINED)
"""States in which the policy wants a wait: how long that is says nothing of how fast a host replaces a worker."""

log = observe.get_logger()


class Orders(Protocol):
    """How children are started under the configuration that is in force."""

    def order(self, name: str, generation: int) -> tuple[ChildOrder, int]:
        """The order of one life, and its memory limit in bytes."""

    def has_device(self, name: str) -> bool:
        """Whether a worker's runtime works on a CUDA device."""


def believable(fault: Fault, name: str, *, has_device: bool = False) -> Fault:
    """A child's word about itself, as far as it is believed (`trtd.core.belief`).

    It goes on to the router, to logs and to terminals, so it has few lines, each of bounded length.
    """
    fault = in_lines(fault)
    return believe_router(fault) if name == ROUTER else believe_worker(fault, has_device=has_device)


class Children:
    """Performs `ChildEffect`s, and turns what the processes do into events.

    Args:
        fleet: read only here.
        facts: noted here.
        submit: takes events.
        orders: how a child is started.
        delegation: cgroup subtree for memory limits, None where the children have to watch themselves.
    """

    def __init__(
        self,
        fleet: Fleet,
        facts: Facts,
        submit: Callable[[FleetEvent], None],
        orders: Orders,
        delegation: Delegation | None,
    ) -> None:
        self._fleet = fleet
        self._facts = facts
        self._submit = submit
        self._orders = orders
        self._delegation = delegation
        self._groups: dict[tuple[str, int], WorkerGroup] = {}
        self._processes: Processes
        self._router: RouterLink

    def connect(self, processes: Processes, router: RouterLink) -> None:
        """Name the two that need this object at their own making; called once, before anything else."""
        self._processes = processes
        self._router = router

    def perform(self, effect: ChildEffect, now: float) -> None:
        """Do what a child's lifecycle asks for."""
        name = effect.name
        match effect.effect:
            case lifecycle.Spawn(generation):
                self._spawn(name, generation, now)
            case lifecycle.AskToStop(generation):
                self._processes.tell(name, generation, control.Stop())
            case lifecycle.KillGroup(generation):
                self._processes.kill(name, generation)
            case lifecycle.SetAside():
                narration.tell_set_aside(self._fleet.children[name])
            case lifecycle.TakeBack():
                narration.tell_taken_back(self._fleet.children[name])
            case lifecycle.IllegalEvent() as illegal:
                narration.tell_illegal_event(name, illegal, now)

    def _spawn(self, name: str, generation: int, now: float) -> None:
        try:
            order, limit_bytes = self._orders.order(name, generation)
            group = self._make_group(name, generation, limit_bytes)
            process = self._processes.start(name, generation, order)
        except (OSError, TrtdError) as error:
            message = error.message if isinstance(error, TrtdError) else str(error)
            cannot_ever = isinstance(error, OutOfMemory) or (isinstance(error, OSError) and is_permanent(error))
            self._drop_group(name, generation)
            draw = random.random()  # noqa: S311 - jitter
            self._tell(name, lifecycle.SpawnFailed(generation, message, draw, cannot_ever))
            return
        enforcement = "rss" if limit_bytes else "none"
        if group is not None:
            try:
                group.add(process.pid)
                enforcement = "cgroup" if limit_bytes else "none"
            except OSError as error:
                log.warning("cgroup.join_failed", child=name, generation=generation, cause=str(error))
        self._facts.child(name).begin(now, limit_bytes, enforcement)
        self._tell(name, lifecycle.Spawned(generation, process.pid))

    def _make_group(self, name: str, generation: int, limit_bytes: int) -> WorkerGroup | None:
        if self._delegation is None or name == ROUTER:
            return None
        try:
            group = self._delegation.make(f"{name.replace('/', '.')}.{generation}", limit_bytes)
        except OSError as error:
            log.warning("cgroup.making_failed", child=name, generation=generation, cause=str(error))
            return None
        self._groups[name, generation] = group
        return group

    def _drop_group(self, name: str, generation: int) -> int:
        """Remove the cgroup of a life; how often the kernel ended something in it for lack of memory."""
        group = self._groups.pop((name, generation), None)
        if group is None:
            return 0
        kills = group.oom_kills()
        group.remove()
        return kills

    # What the processes tell (see trtd.supervisor.processes.Listener)

    def child_said(self, name: str, generation: int, message: control.ChildMessage) -> None:
        """A message came over the child's channel."""
        if not isinstance(message, ROUTER_SAYS if name == ROUTER else WORKER_SAYS):
            self.child_babbled(name, generation, f"{type(message).__name__} is no message of such a child")
        elif getattr(message, "generation", generation) != generation and not isinstance(message, ABOUT_WORKERS):
            self.child_babbled(name, generation, f"{type(message).__name__} is of another generation")
        else:
            self._note(name, generation, message)

    def child_babbled(self, name: str, generation: int, reason: str) -> None:
        """A packet came that makes no sense: whatever runs there is not our code any more."""
        fault = Fault(FaultKind.MISBEHAVED, f"misused its channel: {reason}")
        self._tell(name, lifecycle.FaultReported(generation, believable(fault, name)))

    def child_exited(self, name: str, generation: int, status: ExitStatus, at: float, first_words: str) -> None:
        """The process was reaped."""
        if self._drop_group(name, generation):
            fault = Fault(FaultKind.OUT_OF_MEMORY, "was ended by the kernel at its memory limit")
            self._tell(name, lifecycle.FaultReported(generation, fault))
        if name == ROUTER:
            self._router.lost()
        before = self._fleet.children.get(name)
        place = self._fleet.place(name)
        seen = self._facts.child(name)
        seen.end(at)
        if before is not None and before.desired is Desired.UP and not before.restarting:
            # Before its successor is started, which happens now.
            self._note_harm(before, seen.trial)
        if first_words and before is not None and before.state is State.STARTING:
            log.error("child.start_failed", child=name, generation=generation, stderr=first_words[-MAX_FIRST_WORDS:])
        last_line = one_line(first_words.rpartition("\n")[2])
        draw = random.random()  # noqa: S311 - jitter
        self._tell(name, lifecycle.Exited(generation, status, draw, last_line))
        after = self._fleet.children.get(name)
        seen.has_waited = before is None or before.restarting or (after is not None and after.state in HELD_BACK)
        if before is None or after is None or after.desired is Desired.DOWN:
            seen.death_at = None
            if place is not None and place.role is Role.REPLACED:
                # Its successor took over before it went.
                self._facts.tenant(name.partition("/")[0], self._processes.now()).restarts[WANTED] += 1
        elif name != ROUTER:
            cause = _restart_cause(before, after)
            self._facts.tenant(name.partition("/")[0], self._processes.now()).restarts[cause] += 1

    def _note(self, name: str, generation: int, message: control.ChildMessage) -> None:
        seen = self._facts.child(name)
        match message:
            case control.Hello(main_at=main_at):
                self._note_recovery(name, seen.greet(main_at))
                self._tell(name, lifecycle.Greeted(generation))
            case control.WorkerReady(models=models, runtime=runtime, load_s=load_s):
                seen.models, seen.runtime, seen.load_s = models, runtime, load_s
                self._tell(name, lifecycle.BecameReady(generation))
            case control.TrialBegun():
                seen.trial = message
            case control.TrialEnded(trial=trial):
                seen.trial = None
                self._trials(name).note(trial)
            case control.WorkerBeat(progress=progress, in_flight=in_flight):
                seen.rss_bytes, seen.peak_rss_bytes = message.rss_bytes, message.peak_rss_bytes
                seen.progress, seen.device = progress, message.device
                self._tell(name, lifecycle.Beat(generation, progress, in_flight, message.is_resting))
            case control.RouterReady():
                self._router.opened(generation)
                self._tell(name, lifecycle.BecameReady(generation))
            case control.RouterBeat(progress=progress, rss_bytes=rss_bytes):
                seen.rss_bytes, seen.peak_rss_bytes = rss_bytes, max(rss_bytes, seen.peak_rss_bytes)
                seen.progress = progress
                self._tell(name, lifecycle.Beat(generation, progress, in_flight=0))
            case control.RouterStats(stats=stats):
                if stats.tenant in self._fleet.tenants:
                    now = self._processes.now()
                    self._facts.tenant(stats.tenant, now).totals.take(generation, stats, now)
                    if stats.leased:
                        self._ask_resting(TenantName(stats.tenant))
            case control.FaultReport(fault=fault):
                has_device = name != ROUTER and self._orders.has_device(name)
                self._tell(name, lifecycle.FaultReported(generation, believable(fault, name, has_device=has_device)))
            case control.TenantIsEmpty(tenant, epoch):
                self._submit(TenantEmptied(TenantName(tenant), epoch))
            case control.WorkerIsEmpty(tenant, replica, of):
                self._tell(f"{tenant}/{replica}", lifecycle.Emptied(of))
            case control.WorkerMisbehaved(tenant, replica, of, reason):
                worker = f"{tenant}/{replica}"
                fault = Fault(FaultKind.MISBEHAVED, f"sent the router what cannot be read: {reason}")
                self._tell(worker, lifecycle.FaultReported(of, believable(fault, worker)))
            case control.ClientBlamed():
                self._excuse(message)
            case control.Unfinished():
                self._router.heard_unfinished(message)

    def _excuse(self, message: control.ClientBlamed) -> None:
        """Deaths of which the router found the cause in a client's input: charge nobody."""
        for replica, life in message.deaths:
            name = f"{message.tenant}/{replica}"
            before = self._fleet.children.get(name)
            self._tell(name, lifecycle.DeathExcused(life))
            if before is not None and self._fleet.children.get(name) is not before:
                self._facts.tenant(message.tenant, self._processes.now()).excused += 1
                log.info("worker.excused", tenant=message.tenant, replica=replica, generation=life, owner=message.owner)

    def _note_harm(self, child: Child, trial: control.TrialBegun | None) -> None:
        """A worker that died while it ran a model on inputs that nobody sent: its successor must not try that again."""
        is_device = child.fault is not None and child.fault.blame is Blame.DEVICE
        if trial is None or is_device:
            return
        log.warning("worker.died_of_trial", **narration.child_fields(child), model=one_line(trial.model))
        self._trials(child.name).note(Trial(trial.key, "", is_harmful=True))

    def _trials(self, name: str) -> Trials:
        return self._facts.tenant(name.partition("/")[0], self._processes.now()).trials

    def _ask_resting(self, tenant: TenantName) -> None:
        """Workers of the tenant have got work: one that rests may be one of them, and may be unable to say so."""
        for name in self._fleet.tenants[tenant].workers.values():
            child = self._fleet.children[name]
            if child.is_resting and self._processes.tell(name, child.generation, control.AskBeat()):
                self._tell(name, lifecycle.BeatAsked(child.generation))

    def _note_recovery(self, name: str, recovery_s: float | None) -> None:
        if recovery_s is None:
            return
        child = self._fleet.children.get(name)
        if child is not None:
            area = "router" if name == ROUTER else "worker"
            log.info(f"{area}.recovered", **narration.child_fields(child), recovery_s=round(recovery_s, 6))
        if name != ROUTER and not self._facts.child(name).has_waited:
            now = self._processes.now()
            self._facts.tenant(name.partition("/")[0], now).recoveries.observe(recovery_s)

    def _tell(self, name: str, event: lifecycle.Event) -> None:
        self._submit(ChildEvent(name, event))


def _restart_cause(before: Child, after: Child) -> tuple[str, str]:
    """The kind of the fault before a restart, and who is blamed; nobody is for what was requested."""
    if before.restarting or after.last_fault is None:
        return WANTED
    return str(after.last_fault.kind), str(after.last_fault.blame)
