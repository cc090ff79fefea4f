"""Slots on a TensorRT of plain Python: answers with and without graphs, and what happens to those that fail."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support import engines
from trtd.core.faults import ProcessFault
from trtd.errors import ModelFailed, OutOfMemory
from trtd.runtime.tensorrt import graphs

SHAPES = {"A": 1, "B": 3, "C": 5}


@pytest.fixture
def opening(import_with_cuda, monkeypatch):
    """Opens slots; `engine`, `cuda` and `events` are what they work with."""
    module = import_with_cuda("trtd.runtime.tensorrt.slot")
    cuda = engines.FakeCuda()
    cuda.replace(module.cuda, monkeypatch)
    clock = iter(range(10**6))
    found = SimpleNamespace(cuda=cuda, engine=engines.FakeEngine(cuda), events=[], module=module, capture_s=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock) * found.capture_s))

    def open_slot(**settings):
        session = found.session = engines.make_session(found.events, **settings)
        promise = session.scratch.promise(0, 1024)
        needs = SimpleNamespace(tensor_bytes={"x": 512 * engines.WIDTH * 4, "y": 512 * engines.WIDTH * 4})
        return module.TensorRTSlot(session, found.engine, needs, promise, "model 'm' 1", "m 1")

    found.open_slot = open_slot
    return found


def ask(slot, items, value=0.5):
    """Whether an answer is right."""
    answer = slot.run([{"x": np.full((items, engines.WIDTH), value, np.float32)}])[0]["y"]
    return answer.shape == (items, engines.WIDTH) and bool((answer == value + items).all())


@pytest.mark.parametrize("order", ["AABBA", "AABBCCABCABC", "AABAB", "ABCABCABC"])
@pytest.mark.parametrize("max_graphs", [0, 1, 2, 32])
def test_shapes_in_any_order_are_right(opening, order, max_graphs):
    """A graph answers for its own shape whatever other shapes ran, or were captured, since."""
    slot = opening.open_slot(max_graphs=max_graphs)
    assert all(ask(slot, SHAPES[name], turn) for turn, name in enumerate(order))
    assert slot.graphs <= max_graphs
    slot.close()
    assert not any(graph.is_open for graph in opening.cuda.graphs)
    assert not opening.session.memory.held


def test_a_graph_has_a_context_of_its_own(opening):
    """After a capture the shapes of its context are never set again."""
    slot = opening.open_slot()
    for name in "AABB":
        ask(slot, SHAPES[name])
    assert len(opening.engine.contexts) == 3, "one for the profile, one for each graph"
    before = opening.engine.calls.count("set_input_shape")
    assert ask(slot, SHAPES["A"])
    assert ask(slot, SHAPES["B"])
    assert opening.engine.calls.count("set_input_shape") == before
    assert [graph.launches for graph in opening.cuda.graphs] == [1, 1]


def test_a_capture_that_takes_long_has_to_be_worth_it(opening):
    """While requests wait, a shape gets its graph when its runs are to bring the time back; a warm-up does not wait."""
    opening.capture_s = 100 * graphs.SAVED_S
    slot = opening.open_slot()
    for items in (1, 2):
        slot.settle({"x": np.zeros((items, engines.WIDTH), np.float32)})
    assert slot.graphs == 2
    assert all(ask(slot, 3) for _ in range(99))
    assert slot.graphs == 2
    assert ask(slot, 3)
    assert slot.graphs == 3


def test_one_failed_capture_does_not_end_graphs(opening):
    """The shape goes on without a graph, right, and gets one later; what failed is told with its cause."""
    slot = opening.open_slot()
    opening.cuda.failures.append(opening.module.cuda.CudaError(901, "cudaStreamEndCapture"))
    assert all(ask(slot, 1) for _ in range(2))
    assert slot.graphs == 0
    assert [event for event, _ in opening.events] == ["graph.capture_refused"]
    assert "901" in opening.events[0][1]["cause"]
    assert all(ask(slot, 1) for _ in range(graphs.PAUSE_RUNS + graphs.RUNS_BEFORE_CAPTURE))
    assert slot.graphs == 1


def test_a_context_that_cannot_be_had_costs_the_graph_only(opening):
    """Where memory does not suffice for a graph's context, answers are right without it."""
    slot = opening.open_slot()
    ask(slot, 1)
    opening.engine.failures["create_execution_context"] = opening.module.CallRefused("create_execution_context")
    assert ask(slot, 1)
    assert ask(slot, 1)
    assert slot.graphs == 0


def test_a_new_shape_gets_the_place_of_the_oldest_graph(opening):
    """With no place left, a shape that comes often replaces the one that was not used for the longest time."""
    slot = opening.open_slot(max_graphs=2)
    for name in "AABBA":
        ask(slot, SHAPES[name])
    assert all(ask(slot, SHAPES["C"]) for _ in range(graphs.RUNS_BEFORE_EVICTION))
    assert [graph.is_open for graph in opening.cuda.graphs] == [True, False, True]
    assert all(ask(slot, SHAPES[name]) for name in "CABCAB")


@pytest.mark.parametrize("call", ["infer_shapes", "set_input_shape", "execute_async_v3"])
def test_an_exception_of_the_bindings_is_judged(opening, call):
    """Where the bindings raise instead of returning False, it is the model's failure, and the slot goes on."""
    slot = opening.open_slot()
    opening.engine.failures[call] = RuntimeError(f"{call} failed:\nno")
    with pytest.raises(ModelFailed, match=f"running a batch: {call} failed: no"):
        ask(slot, 1)
    assert ask(slot, 1)


def test_an_exception_that_names_a_lost_device_ends_the_process(opening):
    """The text of an exception counts as one of the recorder's."""
    slot = opening.open_slot()
    text = "Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
    opening.engine.failures["infer_shapes"] = RuntimeError(text)
    with pytest.raises(ProcessFault) as caught:
        ask(slot, 1)
    assert caught.value.fault.code == 700


def test_an_exception_while_a_slot_opens_is_judged(opening):
    """The profile of a new context may be refused by an exception, too; nothing stays held."""
    opening.engine.failures["set_optimization_profile_async"] = RuntimeError("no such profile")
    with pytest.raises(ModelFailed, match="opening a slot: no such profile"):
        opening.open_slot()
    assert not opening.session.memory.held


def test_texts_of_runs_that_went_well_colour_nothing(opening):
    """What the recorder was told before a run says nothing of its failure."""
    slot = opening.open_slot()
    slot._book.note(2, "Error Code 2: OutOfMemory (Requested size was 1 bytes.)")
    opening.engine.failures["infer_shapes"] = RuntimeError("no")
    with pytest.raises(ModelFailed):
        ask(slot, 1)


def test_texts_of_another_slot_colour_nothing(opening, monkeypatch):
    """While a slot opens, what is said to the book that all share is its own: others wait, and leave nothing behind."""
    slot = opening.open_slot()
    session = opening.session
    session.book.note(2, "Error Code 2: OutOfMemory (Requested size was 1 bytes.)")
    opening.engine.failures["set_optimization_profile_async"] = RuntimeError("no such profile")
    with pytest.raises(opening.module.CallRefused):
        slot._make_context(opening.engine.profiles[0], 0)
    assert slot._book.take() == []

    def make_context():
        assert session.alone.locked()
        session.book.note(2, "Error Code 2: OutOfMemory (Requested size was 7 bytes.)")
        raise opening.module.CallRefused("create_execution_context")

    monkeypatch.setattr(opening.engine, "make_context", make_context)
    promise = session.scratch.promise(0, 1024)
    needs = SimpleNamespace(tensor_bytes={"x": 1024, "y": 1024})
    with pytest.raises(OutOfMemory, match="Requested size was 7 bytes"):
        opening.module.TensorRTSlot(session, opening.engine, needs, promise, "model 'm' 1", "m 1")
    assert len(session.book) == 0
    assert not session.alone.locked()


def test_a_slot_that_strays_to_another_thread_works_on_its_device(opening):
    """Each thread is told of the device before the slot's work reaches it."""
    slot = opening.open_slot()
    given = []
    thread = threading.Thread(target=lambda: given.append(ask(slot, 1)))
    thread.start()
    thread.join()
    assert given == [True]
    assert ask(slot, 1)


@pytest.mark.parametrize("max_graphs", [0, 2, 32])
def test_l2_limits_of_all_contexts_stay_within_the_slots_part(opening, max_graphs):
    """TensorRT counts every context that exists; those with graphs get the parts, where there are graphs."""
    slot = opening.open_slot(max_graphs=max_graphs, persistent_l2_bytes=3000)
    for items in (1, 1, 2, 2, 3, 3, 4, 4, 5, 5):
        ask(slot, items)
    limits = [context.persistent_cache_limit for context in opening.engine.contexts]
    assert 0 < sum(limits) <= 3000
    assert bool(limits[0]) == (max_graphs == 0)
