"""The supervisor with real configuration and recorded processes: what each life of a worker is started with."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.config import ConfigDir
from trtd.core.faults import ExitStatus, Fault, FaultKind
from trtd.core.fleet import ROUTER
from trtd.supervisor import room
from trtd.supervisor.loop import Supervisor
from trtd.supervisor.plan import make_plan
from trtd.wire import control
from trtd.wire.settings import WorkerSettings

GIB = 1024**3
BROKEN = Fault(FaultKind.BAD_MODEL, "no model", permanent=True)


class Daemon:
    """A supervisor whose processes never run: what they would say is said by the test."""

    def __init__(self, config_dir: ConfigDir, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config_dir = config_dir
        self.started: list[tuple[str, int, Any]] = []
        self.supervisor = Supervisor(self.plan("v1"), {}, asyncio.get_running_loop())
        monkeypatch.setattr(self.supervisor.processes, "start", self.start)
        monkeypatch.setattr(self.supervisor.processes, "tell", lambda *_: True)
        monkeypatch.setattr(self.supervisor.processes, "kill", lambda *_: None)
        self.children = self.supervisor.children

    def plan(self, model: str) -> Any:
        self.config_dir.write("etc/trtd.toml", f'[tenants.a.models.m]\npath = "/srv/{model}.onnx"\n')
        return make_plan(self.config_dir.load(), os.geteuid(), is_terminal=False)

    def start(self, name: str, generation: int, order: Any) -> Any:
        self.started.append((name, generation, order))
        return SimpleNamespace(pid=1000 + len(self.started))

    def models_of_workers(self) -> list[tuple[str, int, str]]:
        """Name, generation and model of each worker that was started."""
        return [
            (name, generation, control.decode_settings(order.settings, WorkerSettings).models[0].path)
            for name, generation, order in self.started
            if name != ROUTER
        ]

    def make_ready(self, name: str, generation: int) -> None:
        self.children.child_said(name, generation, control.Hello(generation, 1, 0.0))
        ready = control.RouterReady(generation) if name == ROUTER else control.WorkerReady(generation, (), "r", 0.1)
        self.children.child_said(name, generation, ready)

    def die(self, name: str, generation: int, status: ExitStatus) -> None:
        self.children.child_exited(name, generation, status, 0.0, "")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a scenario with a daemon whose router and worker `a/0` serve with model v1."""
    config_dir = ConfigDir(tmp_path)

    def run(scenario):
        async def inside():
            daemon = Daemon(config_dir, monkeypatch)
            daemon.supervisor.apply(daemon.supervisor.plan)
            daemon.make_ready(ROUTER, 1)
            daemon.make_ready("a/0", 1)
            scenario(daemon)

        asyncio.run(inside())

    return run


def test_a_crash_after_a_failed_replacement_comes_back_with_the_old_settings(run):
    """The successor is told of the new model, the old worker's next life of the model that it served with."""

    def scenario(daemon):
        daemon.supervisor.apply(daemon.plan("v2"))
        daemon.children.child_said("a/1", 2, control.Hello(2, 1, 0.0))
        daemon.children.child_said("a/1", 2, control.FaultReport(2, BROKEN))
        daemon.die("a/1", 2, ExitStatus(code=65))
        daemon.die("a/0", 1, ExitStatus(signal=9))
        assert daemon.models_of_workers() == [
            ("a/0", 1, "/srv/v1.onnx"), ("a/1", 2, "/srv/v2.onnx"), ("a/0", 2, "/srv/v1.onnx"),
        ]  # fmt: skip

    run(scenario)


def test_settings_that_nobody_is_started_with_any_more_are_forgotten(run):
    """However often the configuration changes, only what is wanted and what serves is kept."""

    def scenario(daemon):
        for number in range(10):
            daemon.supervisor.apply(daemon.plan(f"w{number}"))
        assert len(daemon.supervisor._plans_by_digest["a"]) == 2

    run(scenario)


def test_a_place_that_is_filled_anew_starts_without_a_past(run):
    """Facts of a worker that was replaced are not told of the next one with its number."""

    def scenario(daemon):
        daemon.supervisor.facts.child("a/0").load_s = 7.0
        daemon.supervisor.apply(daemon.plan("v2"))
        daemon.make_ready("a/1", 2)
        daemon.die("a/0", 1, ExitStatus(signal=9))
        assert "a/0" not in daemon.supervisor.facts.children
        assert daemon.supervisor.facts.tenants["a"].restarts.total() == 1

    run(scenario)


def test_a_successor_for_which_there_is_no_room_is_not_started(run, monkeypatch):
    """Before anything is stopped it is told that two do not fit, with what to do; the old worker serves on."""
    monkeypatch.setattr(room, "free_bytes", lambda: GIB)

    def scenario(daemon):
        daemon.children.child_said("a/0", 1, control.WorkerBeat(1, 0, 0, 2 * GIB, 2 * GIB))
        daemon.supervisor.apply(daemon.plan("v2"))
        assert [name for name, *_ in daemon.models_of_workers()] == ["a/0"]
        progress = daemon.supervisor.fleet.progress("a")
        assert progress.failure.startswith(
            "successor a/1 did not become ready: cannot be started: no memory for two: the worker that serves has 2048"
        )
        assert 'tenants.a.replace = "stop-first"' in progress.failure
        assert progress.failure.endswith("; the old version serves")

    run(scenario)


def test_a_successor_that_fits_is_started(run, monkeypatch):
    """With room for what the old worker has, or without knowing what that is."""
    monkeypatch.setattr(room, "free_bytes", lambda: GIB)

    def scenario(daemon):
        daemon.children.child_said("a/0", 1, control.WorkerBeat(1, 0, 0, GIB, GIB))
        daemon.supervisor.apply(daemon.plan("v2"))
        assert [name for name, *_ in daemon.models_of_workers()] == ["a/0", "a/1"]

    run(scenario)
