"""What the service manager is told by a loop that turns, told again when it did not listen, and not told at all."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.config import make_config
from tests.support.fleet import FleetWorld
from tests.support.log import read_log
from tests.support.service_manager import Host
from tests.support.status import make_status, make_tenant
from tests.support.supervision import make_spec
from trtd.supervisor.notify import Notifier
from trtd.supervisor.service_manager import OVERDUE_S, ServiceManager

LATE_S = 60.0


class Desk:
    """A service manager's view of a fleet that is up, looked at so many times, at instants that a test chooses."""

    def __init__(self, address: str, watchdog_s: float | None = 10.0) -> None:
        self.world = FleetWorld(make_spec("a"))
        self.now = self.world.now
        self.notifier = Notifier(address, watchdog_s)
        supervisor: Any = SimpleNamespace(
            fleet=self.world.fleet,
            plan=SimpleNamespace(config=make_config()),
            status=lambda: make_status(make_tenant()),
            changed=self._changed,
        )
        loop: Any = SimpleNamespace(time=lambda: self.now)
        self._manager = ServiceManager(self.notifier, supervisor, loop)

    async def _changed(self, _: float) -> None:
        raise asyncio.CancelledError

    def look(self) -> None:
        """One turn of the loop."""
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._manager.attend())


@pytest.fixture
def make_desk(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Desk:
            desk = Desk(str(tmp_path / "notify"), **options)
            stack.callback(desk.notifier.close)
            return desk

        yield make


@pytest.mark.parametrize(("late_s", "is_fed"), [(0.0, True), (OVERDUE_S / 2, True), (LATE_S, False)])
def test_a_loop_that_heeds_no_deadline_feeds_no_watchdog(make_desk, tmp_path, late_s, is_fed):
    """A loop may turn and supervise nothing any more: the router's next beat is overdue, and nobody minds."""
    with Host(tmp_path / "notify") as host, read_log() as log:
        desk = make_desk()
        desk.now = desk.world.fleet.next_deadline() + late_s
        desk.look()
        host.read_until_silent(for_s=0.05)
    assert ("WATCHDOG" in host.names()) == is_fed
    assert ("watchdog.withheld" in log.getvalue()) != is_fed


def test_what_did_not_arrive_is_said_again(make_desk, tmp_path):
    """READY, said while the service manager did not listen, is said again at the next look, and only once more."""
    desk = make_desk(watchdog_s=None)
    desk.look()
    with Host(tmp_path / "notify") as host:
        desk.look()
        desk.look()
        host.read_until_silent(for_s=0.05)
    assert [statement for statement in host.statements if "READY" in statement] == [{"READY": "1"}]


def test_the_status_is_told_when_it_changes(make_desk, tmp_path):
    """The same line is not told twice."""
    with Host(tmp_path / "notify") as host:
        desk = make_desk(watchdog_s=None)
        for _ in range(3):
            desk.now += 5.0
            desk.look()
        host.read_until_silent(for_s=0.05)
    assert len([statement for statement in host.statements if "STATUS" in statement]) == 1
