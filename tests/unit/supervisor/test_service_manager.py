"""When the start counts as over, and when supervision counts as stopped."""

from __future__ import annotations

import pytest

from tests.support.fleet import FleetWorld
from tests.support.supervision import CRASH, make_spec
from trtd.core.fleet import ROUTER, DrainRequested
from trtd.core.ids import TenantName
from trtd.supervisor.service_manager import has_settled, overdue_s


def make_world(*specs, **start_status):
    world = FleetWorld()
    world.start_status = start_status
    world.apply(*(specs or (make_spec("a"), make_spec("b"))))
    return world


def test_the_start_is_over_when_all_required_tenants_serve():
    """It lasts until the router and the last required tenant are ready."""
    world = make_world()
    settled = []
    while sources := world.sources():
        settled.append(has_settled(world.fleet, {"a", "b"}))
        world.deliver(sources[0])
    assert not any(settled)
    assert has_settled(world.fleet, {"a", "b"})


def test_one_ready_replica_is_enough():
    """A tenant serves with one worker."""
    world = make_world(make_spec("a", replicas=2))
    while world.sources():
        source = next((source for source in world.sources() if source != "a/1"), None)
        if source is None:
            break
        world.deliver(source)
    assert has_settled(world.fleet, {"a"})


@pytest.mark.parametrize(("required", "is_over"), [({"a", "b"}, False), ({"a"}, True), (set(), True)])
def test_a_tenant_that_is_not_required_is_not_waited_for(required, is_over):
    """Only required tenants count; without any the router decides."""
    world = make_world()
    while sources := [source for source in world.sources() if source != "b/0"]:
        world.deliver(sources[0])
    assert has_settled(world.fleet, required) == is_over


def test_a_tenant_that_failed_is_not_waited_for():
    """A required tenant whose first worker died holds the start up no longer."""
    world = make_world(**{"b/0": CRASH})
    assert not has_settled(world.fleet, {"a", "b"})
    world.run()
    assert has_settled(world.fleet, {"a", "b"})


def test_a_drained_tenant_is_not_waited_for():
    """An operator who drains a tenant while it starts does not keep the daemon from being ready."""
    world = make_world()
    while sources := [source for source in world.sources() if source != "b/0"]:
        world.deliver(sources[0])
    world.handle(DrainRequested(TenantName("b")))
    assert has_settled(world.fleet, {"a", "b"})


def test_no_router_no_readiness():
    """While the router is away the daemon has not started, whatever the tenants do."""
    world = make_world(**{ROUTER: CRASH})
    world.run()
    assert not has_settled(world.fleet, set())


def test_a_deadline_that_nobody_heeds_is_seen():
    """The router's next beat is due in time; when nobody looks any more, the time since then grows."""
    world = make_world()
    world.run()
    assert overdue_s(world.fleet, world.now) == 0.0
    assert overdue_s(world.fleet, world.now + 60.0) > 50.0
