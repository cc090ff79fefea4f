"""The runtime of a worker where TensorRT is a stand-in: what it keeps, what it sets apart, in which order."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest

from trtd.core.memory_plan import MemoryPlan
from trtd.errors import InvalidConfig
from trtd.observe import RateLimit
from trtd.runtime.tensorrt.l2 import L2Share
from trtd.runtime.tensorrt.recorder import ErrorBook
from trtd.wire.tensorrt import TensorRTSettings


@pytest.fixture
def runtime(import_with_cuda):
    """The module."""
    return import_with_cuda("trtd.runtime.tensorrt.runtime")


class Runtime:
    """TensorRT's, as far as it is opened here."""

    def __init__(self, logger=None):
        self.child = None

    def load_runtime(self, path):
        made = Runtime()
        made.path = path
        return made


def test_the_parent_of_a_loaded_runtime_stays(runtime):
    """The runtime that loads a lean library is not collected while engines of the other one may work through it."""
    made = []

    def make(logger):
        made.append(weakref.ref(one := Runtime()))
        return one

    stub = SimpleNamespace(
        package=SimpleNamespace(module=SimpleNamespace(Runtime=make, __name__="tensorrt")),
        _book=ErrorBook(),
        _logger=None,
        _recorder="recorder",
        _allocator="allocator",
        _prepare=lambda one, _: setattr(one, "is_prepared", True),
    )
    loaded = runtime.TensorRTRuntime._open(stub, TensorRTSettings(lean_library="/lean.so"))
    gc.collect()
    parent = made[0]()
    assert parent is not None
    assert parent.is_prepared
    assert loaded.is_prepared
    assert loaded.path == "/lean.so"
    runtime._parents.clear()


def test_l2_of_all_slots_must_fit_the_device(runtime, monkeypatch):
    """The limit of the device is that of all slots together: what goes beyond it is refused, not cut."""
    told = []
    monkeypatch.setattr(runtime.cuda, "set_persisting_l2", told.append)
    stub = SimpleNamespace(device=SimpleNamespace(persisting_l2_bytes=1000))
    runtime.TensorRTRuntime._set_l2_apart(stub, 250, 4)
    assert told == [1000]
    with pytest.raises(InvalidConfig, match="251 for each of 4 slots; this device sets apart 1000 in all"):
        runtime.TensorRTRuntime._set_l2_apart(stub, 251, 4)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (-1, {"weights_bytes": 5000}),
        (0, {"streamed_bytes": 0}),
        (700, {"streamed_bytes": 700}),
        (9000, {"streamed_bytes": 5000}),
    ],
)
def test_streamed_weights_are_admitted_by_their_budget(import_with_cuda, budget, expected):
    """Before a plan is loaded its weights count, of a plan that streams them only those that are to stay."""
    model = import_with_cuda("trtd.runtime.tensorrt.model")
    settings = TensorRTSettings(streamed_weights_bytes=budget)
    plan = model.plan_of_weights(SimpleNamespace(weights_bytes=5000), settings, 10)
    assert plan == MemoryPlan(**expected, overhead_bytes=10)


@pytest.mark.parametrize(("models", "pieces"), [(1, 1), (3, 2), (2, 7), (5, 96)])
def test_contexts_share_the_part_of_their_slot(models, pieces):
    """However many contexts come and go, their limits together never pass the slot's part of the model."""
    share = L2Share(10_000, models, pieces)
    taken = [share.take() for _ in range(pieces + 5)]
    assert sum(taken) * models <= 10_000
    assert taken[pieces:] == [0] * 5
    assert min(taken[:pieces]) > 0
    share.give_back(0)
    assert share.take() == 0
    share.give_back(taken[0])
    assert share.take() == taken[0]


def test_a_flood_of_refusals_is_told_once_a_second(runtime, monkeypatch):
    """One line a second for each model; the next one says how many it stands for, and other events all pass."""
    told, now = [], [100.0]
    monkeypatch.setattr(runtime, "log", SimpleNamespace(error=lambda event, **fields: told.append((event, fields))))
    monkeypatch.setattr(runtime, "LEVELS", {})
    monkeypatch.setattr(runtime, "_floods", RateLimit(every_s=1.0))
    monkeypatch.setattr(runtime.time, "monotonic", lambda: now[0])
    for model in ("a", "b"):
        for _ in range(50):
            runtime.tell("device_memory.refused", {"model": model, "size_bytes": 1})
    assert [fields["model"] for _, fields in told] == ["a", "b"]
    now[0] += 1.5
    runtime.tell("device_memory.refused", {"model": "a", "size_bytes": 1})
    assert told[-1] == ("device_memory.refused", {"model": "a", "size_bytes": 1, "held_back": 49})
    for _ in range(3):
        runtime.tell("device_memory.level_changed", {"level": "high"})
    assert [event for event, _ in told[-3:]] == ["device_memory.level_changed"] * 3


@pytest.mark.parametrize(
    ("overhead", "unaccounted", "expected"), [(600, 526, 74), (600, 900, 0), (600, 0, 100), (0, 526, 0)]
)
def test_what_the_context_took_is_not_asked_for_again(import_with_cuda, overhead, unaccounted, expected):
    """Admission wants what the driver is still to take; where it does not say what it took, a context's usual part."""
    model = import_with_cuda("trtd.runtime.tensorrt.model")
    mib = 1024**2
    stub = SimpleNamespace(
        settings=TensorRTSettings(overhead_bytes=overhead * mib),
        reconciler=SimpleNamespace(first_unaccounted_bytes=lambda: unaccounted * mib),
    )
    assert model.overhead_to_come(stub) == expected * mib


def test_a_load_lifts_the_derived_watermark_and_sets_the_next_one(import_with_cuda, monkeypatch):
    """While a model is loaded only the device bounds it; afterwards, also after a failure, the sum of all does."""
    model = import_with_cuda("trtd.runtime.tensorrt.model")
    bounds, owners = [], []
    session = SimpleNamespace(
        memory=SimpleNamespace(
            act_for=owners.append, bound=bounds.append, state=lambda: SimpleNamespace(live_bytes=30 * 10**9)
        ),
        scratch=SimpleNamespace(promised_bytes=10 * 10**9, growth_bytes=5),
        device=SimpleNamespace(total_bytes=10**12),
    )

    def load(*_):
        assert bounds == [0]
        raise InvalidConfig("no plan")

    monkeypatch.setattr(model, "_load", load)
    with pytest.raises(InvalidConfig):
        model.load_model(session, None, None, SimpleNamespace(name="m", version="2"))
    assert bounds == [0, 50 * 10**9 + 5]
    assert owners == ["m 2", ""]
