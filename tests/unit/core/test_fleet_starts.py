"""How many workers load at one time, and who is next."""

from __future__ import annotations

from tests.support.fleet import FleetWorld, spawns
from tests.support.supervision import make_spec
from trtd.core.fleet import ROUTER, ConfigApplied, Fleet, ShutdownRequested, TimePassed
from trtd.core.fleet.starts import HOLDS_S
from trtd.core.lifecycle import State, Timeouts
from trtd.core.restarts import RestartPolicy


def crowd(count: int = 6, *, most: int = 2, replicas: int = 1) -> FleetWorld:
    """A world with this many tenants and places to load, in which nothing has happened yet."""
    world = FleetWorld()
    world.fleet = Fleet(Timeouts(), RestartPolicy(), most)
    world.specs = tuple(make_spec(chr(ord("a") + number), replicas=replicas) for number in range(count))  # type: ignore[attr-defined]
    return world


def begin(world: FleetWorld) -> list[str]:
    """Apply the configuration; who is started at once."""
    return spawns(world.handle(ConfigApplied(world.specs)))  # type: ignore[attr-defined]


def loading(world: FleetWorld) -> set[str]:
    """Workers that have a process and are not ready yet."""
    children = world.fleet.children.items()
    return {name for name, child in children if name != ROUTER and name in world.pids and child.ready_at is None}


def test_only_so_many_load_at_one_time():
    """The others wait without a process, and each that becomes ready lets the next one start, until all serve."""
    world = crowd()
    assert begin(world) == [ROUTER, "a/0", "b/0"]
    most = 0
    while sources := world.sources():
        world.deliver(sources[0])
        most = max(most, len(loading(world)))
    assert most == 2
    assert set(world.states().values()) == {State.READY}


def test_a_worker_that_served_goes_first():
    """A crash is followed by a start at once, though the places for new workers are taken."""
    world = crowd(count=1)
    begin(world)
    world.run()
    world.specs = (*world.specs, *(make_spec(f"new{number}") for number in range(4)))  # type: ignore[attr-defined]
    assert begin(world) == ["new0/0", "new1/0"]
    world.kill("a/0")
    assert spawns(world.deliver("a/0")) == ["a/0"]


def test_of_equals_the_tenant_with_fewest_loading_goes_first():
    """A tenant with many replicas does not keep a later one from starting."""
    world = crowd(count=2, replicas=3)
    assert begin(world) == [ROUTER, "a/0", "b/0"]
    world.deliver("b/0")
    for _ in range(2):
        effects = world.deliver("b/0")
    assert spawns(effects) == ["b/1"]


def test_a_worker_that_hangs_while_it_loads_holds_up_nobody_for_long():
    """After some seconds its place goes to the next one, and the fleet asks to be called then."""
    world = crowd(count=3, most=1)
    assert begin(world) == [ROUTER, "a/0"]
    assert world.fleet.next_deadline() == world.now + HOLDS_S
    world.now += HOLDS_S
    assert spawns(world.handle(TimePassed())) == ["b/0"]


def test_a_start_that_waits_can_be_taken_back():
    """A daemon that stops ends with workers whose turn never came, and starts none of them."""
    world = crowd()
    begin(world)
    world.run()
    world.specs = (*world.specs, *(make_spec(f"new{number}") for number in range(4)))  # type: ignore[attr-defined]
    begin(world)
    effects = [*world.handle(ShutdownRequested(forced=True)), *world.run()]
    assert spawns(effects) == []
    assert world.fleet.is_stopped
