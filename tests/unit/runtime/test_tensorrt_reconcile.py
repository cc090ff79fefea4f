"""The ledger beside the driver: what is known, what is unknown, and that one racing sample has no consequences."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trtd.wire.tensorrt import TensorRTSettings

MIB = 1024**2


class Driver:
    """Gives the figures of a test, one for each look."""

    def __init__(self, *figures: int | None) -> None:
        self.figures = list(figures)
        self.cause = "nobody tells"

    def read(self) -> int | None:
        return self.figures.pop(0)


class Memory:
    """A pool whose size changes between two questions."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.size_bytes = 100 * MIB

    def pool_bytes(self) -> tuple[int, int]:
        return 0, self.sizes.pop(0) if self.sizes else self.size_bytes


@pytest.fixture
def reconciling(import_with_cuda, monkeypatch):
    """Makes a reconciler that looks when a test says so, with its pool and what it told."""
    module = import_with_cuda("trtd.runtime.tensorrt.reconcile")
    monkeypatch.setattr(module.Reconciler, "_watch", lambda _: None)

    def reconciling(policy: str = "restart", limit_bytes: int = 10 * MIB) -> Any:
        told: list[tuple[str, dict[str, Any]]] = []
        settings = TensorRTSettings(unaccounted_bytes=limit_bytes, on_unaccounted=policy)
        memory = Memory()
        reconciler = module.Reconciler(memory, settings, 0, lambda event, fields: told.append((event, fields)))
        return SimpleNamespace(reconciler=reconciler, memory=memory, told=told)

    return reconciling


def verdict(world: Any) -> str:
    return world.reconciler._verdict


def test_too_much_has_consequences_when_it_is_seen_twice(reconciling):
    """One look may race with an allocation; the second one in a row is believed, and one that is fine ends it."""
    world = reconciling()
    for figure, expected in ((120, "ok"), (105, "ok"), (120, "ok"), (120, "restart"), (105, "ok")):
        world.reconciler.look(Driver(figure * MIB))
        assert verdict(world) == expected
    assert [fields["verdict"] for _, fields in world.told] == ["restart", "ok"]


def test_a_pool_that_grows_meanwhile_accuses_nobody(reconciling):
    """The pool is read before and after the driver, and the larger figure counts."""
    world = reconciling()
    for _ in range(3):
        world.memory.sizes = [100 * MIB, 150 * MIB]
        world.reconciler.look(Driver(155 * MIB))
        assert verdict(world) == "ok"
        assert world.reconciler.unaccounted_bytes == 5 * MIB
    for _ in range(3):
        world.memory.sizes = [150 * MIB, 100 * MIB]
        world.reconciler.look(Driver(155 * MIB))
        assert verdict(world) == "ok"


@pytest.mark.parametrize("policy", ["warn", "stop_admitting", "restart"])
def test_what_nobody_tells_is_unknown(reconciling, policy):
    """Without a figure there is no verdict of any policy, no zero, and one line that says why."""
    world = reconciling(policy)
    for _ in range(3):
        world.reconciler.look(Driver(None))
    assert verdict(world) == "unknown"
    assert world.reconciler.unaccounted_bytes is None
    assert world.reconciler.first_unaccounted_bytes() == 0
    assert world.reconciler.is_admitting
    assert world.told == [("device_memory.unknown", {"cause": "nobody tells"})]


def test_a_figure_that_cannot_be_ours_is_unknown(reconciling):
    """A process cannot use less than its own pool holds: in another pid namespace the number is somebody else's."""
    world = reconciling()
    world.reconciler.look(Driver(50 * MIB))
    assert verdict(world) == "unknown"
    assert world.reconciler.unaccounted_bytes is None


def test_a_figure_that_is_lost_ends_a_verdict(reconciling):
    """What was found before says nothing once the driver does not tell any more, and the two looks begin anew."""
    world = reconciling("stop_admitting")
    for figure in (120 * MIB, 120 * MIB):
        world.reconciler.look(Driver(figure))
    assert not world.reconciler.is_admitting
    world.reconciler.look(Driver(None))
    assert verdict(world) == "unknown"
    world.reconciler.look(Driver(120 * MIB))
    assert world.reconciler.is_admitting


def test_without_a_limit_the_figures_are_still_told(reconciling):
    """With no limit configured nothing follows, and what the driver says is shown."""
    world = reconciling(limit_bytes=0)
    for _ in range(3):
        world.reconciler.look(Driver(500 * MIB))
    assert verdict(world) == "ok"
    assert world.reconciler.unaccounted_bytes == 400 * MIB
    assert world.told == []
