"""What a child may say, and what of it is believed."""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import Mock

import pytest

from tests.support.supervision import make_fault
from trtd.core import lifecycle
from trtd.core.cuda_faults import MAX_TEXTS, sticky_fault
from trtd.core.faults import ExitStatus, FaultKind
from trtd.core.fleet import (
    ROUTER,
    ChildEffect,
    ChildEvent,
    ConfigApplied,
    Fleet,
    ResumeRequested,
    TenantEmptied,
    TenantRestartRequested,
    TenantSpec,
    TimePassed,
)
from trtd.core.ids import TenantName
from trtd.core.lifecycle import Child, State, Timeouts
from trtd.core.restarts import RestartPolicy
from trtd.errors import Blame, ExitCode
from trtd.supervisor.children import Children, believable
from trtd.supervisor.facts import MAX_TRIALS, Facts
from trtd.supervisor.spawn import ChildOrder
from trtd.wire import control
from trtd.wire.settings import Trial

SPEC = TenantSpec(TenantName("a"), 1, Timeouts(), RestartPolicy(), "w", "r")


class World:
    """A fleet with one tenant, and children whose processes and router are recorded instead of real."""

    def __init__(self, *, has_device: bool = False) -> None:
        self.time = 10.0
        self.works_on_a_device = has_device
        self.fleet = Fleet(Timeouts(), RestartPolicy())
        self.facts = Facts()
        self.events: list[Any] = []
        self.started: list[tuple[str, int]] = []
        self.told: dict[str, tuple[str, bool]] = {}
        self.lost = 0
        self.opened_generation: int | None = None
        self.children = Children(self.fleet, self.facts, self.submit, self, None)
        self.children.connect(self, self)  # type: ignore[arg-type]
        self.submit(ConfigApplied((SPEC,)))

    def submit(self, event: Any) -> None:
        self.events.append(event)
        for effect in self.fleet.handle(event, self.time):
            if isinstance(effect, ChildEffect):
                self.children.perform(effect, self.time)

    def order(self, name: str, generation: int) -> tuple[ChildOrder, int]:
        self.told = {one.key: (one.batching, one.is_harmful) for one in self.facts.tenant("a", 0.0).trials.known}
        return ChildOrder("worker", b""), 1 << 30

    def has_device(self, name: str) -> bool:
        return self.works_on_a_device

    def start(self, name: str, generation: int, order: ChildOrder) -> Any:
        self.started.append((name, generation))

        class Started:
            pid = 1000 + len(self.started)

        return Started()

    def now(self) -> float:
        return self.time

    def tell(self, *_: Any) -> bool:
        return True

    def kill(self, *_: Any) -> None:
        pass

    def lost_router(self) -> None:
        self.lost += 1

    def opened(self, generation: int) -> None:
        self.opened_generation = generation

    def make_ready(self) -> None:
        """Bring the first worker up."""
        self.children.child_said("a/0", 1, control.Hello(1, 1, self.time))
        self.children.child_said("a/0", 1, control.WorkerReady(1, (), "scripted 1", 0.5))

    def faults(self) -> list[Any]:
        return [
            event.event.fault
            for event in self.events
            if isinstance(event, ChildEvent) and isinstance(event.event, lifecycle.FaultReported)
        ]


def test_a_device_is_blamed_by_workers_that_have_one():
    """The same report is charged to a tenant on the CPU, and to the device of a tenant that works on one."""
    ecc = sticky_fault(214, "run of model 'm'", ["uncorrectable ECC error encountered"])
    for has_device in (False, True):
        world = World(has_device=has_device)
        world.make_ready()
        world.children.child_said("a/0", 1, control.FaultReport(1, ecc))
        world.children.child_exited("a/0", 1, ExitStatus(code=75), at=20.0, first_words="")
        child = world.fleet.children["a/0"]
        assert (len(child.deaths), len(child.device_deaths)) == ((0, 1) if has_device else (1, 0))
        fault = child.last_fault
        assert fault is not None
        assert (fault.code, fault.texts) == (214, ("uncorrectable ECC error encountered",))
        kind, blame = ("sticky_error", "device") if has_device else ("exited", "tenant")
        assert world.facts.tenants["a"].restarts == {(kind, blame): 1}


def test_a_fault_is_told_in_few_bounded_lines():
    """Whatever texts a child calls its fault, what goes on is short, has no control characters, and fits a packet."""
    for name in ("a/0", ROUTER):
        noise = "\x1b[2J\n" + "x" * control.MAX_PACKET_BYTES
        fault = believable(make_fault(message=noise, texts=(noise,) * 1000), name)
        assert len(fault.texts) == MAX_TEXTS
        for line in (fault.message, *fault.texts):
            assert len(line) <= 1024
            assert line.isprintable()
        control.encode(control.WorkerRevoked("a" * 60, 0, 1, fault))


@pytest.mark.parametrize(
    "message",
    [
        control.TenantIsEmpty("a", 0),
        control.WorkerIsEmpty("a", 0, 1),
        control.WorkerMisbehaved("a", 0, 1, "says a worker"),
        control.ClientBlamed("a", "uid:1", "m", ((0, 1),), 0.0),
        control.RouterReady(1),
        control.RouterBeat(1, 0, 0),
        control.Stop(),
        control.WorkerBeat(2, 0, 0, 0, 0),
        control.Hello(7, 1, 0.0),
    ],
)
def test_a_worker_that_speaks_out_of_turn_is_at_fault(message):
    """A message that only the router may send, or of another generation, ends the worker and does nothing else."""
    world = World()
    world.make_ready()
    before = len(world.events)
    world.children.child_said("a/0", 1, message)
    (event,) = world.events[before:]
    assert event.event.fault.kind is FaultKind.MISBEHAVED
    assert not isinstance(event, TenantEmptied)
    assert world.fleet.children["a/0"].state is lifecycle.State.STOPPING


def test_the_router_tells_of_a_worker_that_makes_no_sense():
    """It is ended and its tenant pays, with one line for a cause; a word about an earlier life does nothing."""
    world = World()
    world.make_ready()
    router = world.fleet.children[ROUTER].generation
    before = len(world.events)
    for earlier in (control.WorkerMisbehaved("a", 0, 0, "late"), control.WorkerMisbehaved("nobody", 3, 1, "lost")):
        world.children.child_said(ROUTER, router, earlier)
    assert world.fleet.children["a/0"].state is lifecycle.State.READY
    world.children.child_said(ROUTER, router, control.WorkerMisbehaved("a", 0, 1, "noise\n\x1b[2J"))
    assert [event.name for event in world.events[before:]] == ["a/0", "nobody/3", "a/0"]
    child = world.fleet.children["a/0"]
    assert child.state is lifecycle.State.STOPPING
    assert child.fault is not None
    assert (child.fault.kind, child.fault.blame) == (FaultKind.MISBEHAVED, Blame.TENANT)
    assert "noise" in child.fault.message
    assert child.fault.message.isprintable()


def test_recovery_is_from_death_to_main():
    """The time between the end of a process and its successor's main() is kept for status and metrics."""
    world = World()
    world.make_ready()
    world.children.child_exited("a/0", 1, ExitStatus(signal=9), at=20.0, first_words="")
    assert world.started[-1] == ("a/0", 2)
    world.children.child_said("a/0", 2, control.Hello(2, 1, main_at=20.25))
    assert world.facts.child("a/0").recovery_s == 0.25
    assert world.facts.tenants["a"].recoveries.count == 1
    assert world.facts.tenants["a"].restarts == {("killed", "tenant"): 1}


def test_a_wait_that_the_policy_wants_is_no_slow_recovery():
    """What was held back in backoff or quarantine is told in the status, and is not in the histogram."""
    world = World()
    world.make_ready()

    def die(status: ExitStatus) -> Child:
        generation = world.fleet.children["a/0"].generation
        world.children.child_exited("a/0", generation, status, at=world.time, first_words="")
        return world.fleet.children["a/0"]

    def come_back_after(event: Any) -> None:
        died_at, world.time = world.time, world.time + 100.0
        world.submit(event)
        generation = world.fleet.children["a/0"].generation
        world.children.child_said("a/0", generation, control.Hello(generation, 1, main_at=world.time))
        assert world.facts.child("a/0").recovery_s == world.time - died_at

    die(ExitStatus(signal=9))
    assert die(ExitStatus(signal=9)).state is State.BACKOFF
    come_back_after(TimePassed())
    assert die(ExitStatus(code=ExitCode.BAD_DATA)).state is State.QUARANTINED
    come_back_after(ResumeRequested(TenantName("a")))
    assert world.facts.tenants["a"].recoveries.count == 0


def test_a_process_that_cannot_be_started_is_a_failed_spawn(monkeypatch):
    """An error of the system becomes an event, and the child waits to be tried again."""
    world = World()
    world.make_ready()

    def fail(*_: Any) -> None:
        raise OSError(11, "no more processes")

    monkeypatch.setattr(world, "start", fail)
    for number in range(2):
        world.children.child_exited("a/0", 1 + number, ExitStatus(signal=9), at=20.0, first_words="")
    child = world.fleet.children["a/0"]
    assert child.last_fault is not None
    assert child.last_fault.kind is FaultKind.SPAWN_FAILED
    assert "no more processes" in child.last_fault.message


def test_a_missing_interpreter_is_not_looked_for_again(monkeypatch):
    """An error that names the interpreter itself suspends the child at once; another file's is tried again."""
    for filename, state in ((sys.executable, State.QUARANTINED), ("/some/other", State.BACKOFF)):
        world = World()
        world.make_ready()
        error = FileNotFoundError(2, "No such file or directory", filename)
        monkeypatch.setattr(world, "start", Mock(side_effect=[error, Mock(pid=1)]))
        world.children.child_exited("a/0", 1, ExitStatus(signal=9), at=20.0, first_words="")
        assert world.fleet.children["a/0"].state is state


def test_beats_are_noted():
    """Memory and progress of a beat stand in the facts, and the lifecycle sees the life sign."""
    world = World()
    world.make_ready()
    world.children.child_said("a/0", 1, control.WorkerBeat(1, 5, 2, 1000, 2000))
    seen = world.facts.child("a/0")
    assert (seen.rss_bytes, seen.peak_rss_bytes, seen.progress) == (1000, 2000, 5)
    assert seen.enforcement == "rss"
    assert world.fleet.children["a/0"].in_flight == 2


def test_deaths_that_a_client_caused_are_taken_back():
    """The router's word excuses lives of its tenant's workers, counts each once, and means nothing for anybody else."""
    world = World()
    world.make_ready()
    router = world.fleet.children[ROUTER].generation
    world.children.child_exited("a/0", 1, ExitStatus(signal=11), at=20.0, first_words="")
    assert len(world.fleet.children["a/0"].deaths) == 1
    for _ in range(2):
        blamed = control.ClientBlamed("a", "uid:666", "m", ((0, 1), (7, 1)), 0.0)
        world.children.child_said(ROUTER, router, blamed)
    world.children.child_said(ROUTER, router, control.ClientBlamed("nobody", "uid:666", "m", ((0, 1),), 0.0))
    assert world.fleet.children["a/0"].deaths == ()
    assert world.facts.tenants["a"].excused == 1


def test_what_a_worker_tried_and_died_of_is_known_to_its_successor():
    """A death during a trial marks it; one before or after, or that an operator asked for, does not."""
    world = World()
    world.children.child_said("a/0", 1, control.Hello(1, 1, world.time))
    world.children.child_exited("a/0", 1, ExitStatus(signal=8), at=20.0, first_words="")
    assert world.told == {}
    world.children.child_said("a/0", 2, control.TrialBegun(2, "m 1", "k1"))
    world.children.child_said("a/0", 2, control.TrialEnded(2, Trial("k1", "proven")))
    world.children.child_said("a/0", 2, control.TrialBegun(2, "n 1", "k2"))
    world.children.child_exited("a/0", 2, ExitStatus(signal=8), at=21.0, first_words="")
    world.time = 25.0
    world.submit(TimePassed())
    assert world.started[-1] == ("a/0", 3)
    assert world.told == {"k1": ("proven", False), "k2": ("", True)}
    world.children.child_said("a/0", 3, control.TrialBegun(3, "o 1", "k3"))
    world.submit(TenantRestartRequested(TenantName("a")))
    world.children.child_exited("a/0", 3, ExitStatus(signal=9), at=22.0, first_words="")
    assert world.started[-1] == ("a/0", 4)
    assert "k3" not in world.told


def test_outcomes_are_bounded_and_belong_to_their_tenant():
    """However much a worker tells, only so much is kept, each in one line; what has no key is not kept."""
    facts = Facts()
    known = facts.tenant("a", 0.0).trials
    for number in range(MAX_TRIALS + 10):
        known.note(Trial(f"{number:04}" + "x" * 1000, "alone: " + "a\n" * 10_000))
    known.note(Trial("", "proven"))
    assert len(known.known) == MAX_TRIALS
    assert known.known[-1].key.startswith(f"{MAX_TRIALS + 9:04}")
    assert all(len(one.key) <= 64 and len(one.batching) <= 1024 and one.batching.isprintable() for one in known.known)
    assert facts.tenant("b", 0.0).trials.known == ()
