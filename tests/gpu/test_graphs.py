"""CUDA graphs of slots: right in any order of shapes, replaced by use, and not disturbed by other threads."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest

from tests.gpu.conftest import check, model_settings, reference
from trtd.errors import ModelFailed
from trtd.runtime.tensorrt.graphs import RUNS_BEFORE_EVICTION

pytestmark = pytest.mark.gpu

cuda = pytest.importorskip("trtd.runtime.cuda", reason="no GPU test can run: cuda-bindings are not installed")

PLANS = ["mlp.plain", "mlp_two_profiles.vc", "two_io.vc", "encoder_fp16.plain"]
ORDERS = ["AABBA", "AABBCCABCABC", "ABABAABBCABC"]
CASES = {"A": "one", "B": "three", "C": "opt"}
SIZES = 40


@pytest.mark.parametrize("max_graphs", [0, 1, 2, 32])
@pytest.mark.parametrize("plan", PLANS)
def test_shapes_in_any_order_are_right(open_tensorrt, assets, plan, max_graphs):
    """A graph answers for its own shape, whatever was run or captured since."""
    model = open_tensorrt(max_graphs=max_graphs).load(model_settings(assets, plan))
    for order in ORDERS:
        slot = model.open_slot()
        slot._graphs.is_eager = True
        for name in order:
            inputs, outputs = reference(assets, plan, CASES[name])
            check(plan, slot.run([inputs])[0], outputs)
        assert slot.graphs <= max_graphs
        slot.close()


def rows(assets, count):
    """The first rows of the MLP's largest case, repeated as needed, and their answers."""
    inputs, outputs = reference(assets, "mlp", "opt")
    repeats = -(-count // len(inputs["x"]))
    return tuple(
        {name: np.ascontiguousarray(np.concatenate([array] * repeats)[:count]) for name, array in arrays.items()}
        for arrays in (inputs, outputs)
    )


def test_graphs_give_their_place_to_shapes_that_come_more_often(open_tensorrt, assets):
    """Whatever comes often is captured in the end, never more than allowed, and every answer is right on the way."""
    runtime = open_tensorrt(max_graphs=2)
    slot = runtime.load(model_settings(assets, "mlp.plain")).open_slot()
    slot._graphs.is_eager = True
    for count in (1, 64):
        slot.settle(rows(assets, count)[0])
    slot._graphs.is_eager = True
    held = runtime.ledger().live_bytes
    captured = []
    for count in (3, 5, 9, 17, 33):
        inputs, outputs = rows(assets, count)
        for _ in range(RUNS_BEFORE_EVICTION + 2):
            check("mlp", slot.run([inputs])[0], outputs)
        captured.append(slot._graphs.find((0, ((count, 512),))) is not None)
        assert slot.graphs == 2
    assert captured == [True] * 5
    assert runtime.ledger().live_bytes == held, "each graph's context went with it"
    rng = random.Random(3)
    for _ in range(400):
        inputs, outputs = rows(assets, rng.choice((3, 5, 9, 17, 33)))
        check("mlp", slot.run([inputs])[0], outputs)


def test_what_a_graph_costs(open_tensorrt, assets):
    """A graph takes a context's own few kilobytes of device memory, and no scratch memory of its own."""
    runtime = open_tensorrt(max_graphs=64)
    slot = runtime.load(model_settings(assets, "mlp.plain")).open_slot()
    slot._graphs.is_eager = True
    before, graphs = runtime.ledger().live_bytes, slot.graphs
    for count in range(2, 22):
        for _ in range(2):
            inputs, outputs = rows(assets, count)
            check("mlp", slot.run([inputs])[0], outputs)
    made = slot.graphs - graphs
    each = (runtime.ledger().live_bytes - before) / made
    print(f"{made} graphs, {each:.0f} bytes each")
    assert made >= 18
    assert each <= 64 * 1024


def capture_many(slot, assets):
    """Run each size until it is captured; how many captures failed at their first try."""
    failed = 0
    slot._graphs.is_eager = True
    for count in range(2, 2 + SIZES):
        inputs, outputs = rows(assets, count)
        for _ in range(2):
            check("mlp", slot.run([inputs])[0], outputs)
        failed += slot._graphs.find((0, ((count, 512),))) is None
    return failed


def disturbed(slot, assets, disturb):
    """Captures that fail while another thread does something again and again; how often it did, and what it raised."""
    is_over, raised, times = threading.Event(), [], 0

    def work():
        nonlocal times
        cuda.use_device(0)
        while not is_over.is_set():
            try:
                disturb()
            except BaseException as error:
                raised.append(error)
            times += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        failed = capture_many(slot, assets)
    finally:
        is_over.set()
        thread.join()
    return failed, times, raised


@pytest.fixture
def opened(open_tensorrt, assets):
    """A runtime with a model, and a slot that may capture all sizes."""
    runtime = open_tensorrt(slots=3, max_graphs=64)
    model = runtime.load(model_settings(assets, "mlp.plain"))
    return runtime, model, model.open_slot()


def test_a_failure_of_one_slot_ends_no_capture_of_another(opened, assets, monkeypatch):
    """A slot that fails again and again is judged sound each time, and the captures beside it all succeed."""
    _, model, slot = opened
    other = model.open_slot()
    judging = pytest.importorskip("trtd.runtime.tensorrt.judge")

    def refuse(*_):
        raise judging.CallRefused("the test")

    monkeypatch.setattr(other, "_enqueue", refuse)
    inputs, _ = rows(assets, 50)
    failed, times, raised = disturbed(slot, assets, lambda: other.run([inputs]))
    print(f"{times} failures beside {SIZES} captures, {failed} of which failed")
    assert {type(error) for error in raised} == {ModelFailed}
    assert failed == 0
    assert times > 50


def test_slots_open_and_close_beside_captures(opened, assets):
    """Contexts are made and captures taken one after the other: neither fails for the other's sake."""
    _, model, slot = opened
    failed, times, raised = disturbed(slot, assets, lambda: model.open_slot().close())
    print(f"{times} slots opened beside {SIZES} captures, {failed} of which failed")
    assert raised == []
    assert failed == 0


def test_memory_comes_and_goes_beside_captures(opened, assets):
    """Device memory, pinned memory and registered memory may come and go while another thread captures."""
    runtime, _, slot = opened
    memory = np.zeros(1 << 20, np.uint8)
    address = -(-int(memory.ctypes.data) // 4096) * 4096

    def disturb():
        runtime.memory.free(runtime.memory.allocate(1 << 20, "the test"))
        cuda.PinnedBuffer(1 << 16).close()
        cuda.pin(address, 1 << 16)
        cuda.unpin(address)
        cuda.memory_info()

    failed, times, raised = disturbed(slot, assets, disturb)
    print(f"{times} times beside {SIZES} captures, {failed} of which failed")
    assert raised == []
    assert failed == 0
