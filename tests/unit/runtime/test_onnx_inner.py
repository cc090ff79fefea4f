"""ONNX Runtime past the Python part of its API: the same answers and refusals as through it."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from trtd.demo import models
from trtd.runtime import onnxruntime as runtime
from trtd.runtime.onnx_inner import inner_binding, inner_run
from trtd.runtime.ort import ort
from trtd.wire.arenas import MIN_PLACED_BYTES
from trtd.wire.messages import Dtype, ModelDescription, TensorContract

WIDE = MIN_PLACED_BYTES // 4
DESCRIPTION = ModelDescription(
    "m",
    "1",
    (TensorContract("x", Dtype.FLOAT32, (None, WIDE)),),
    (TensorContract("y", Dtype.FLOAT32, (None, WIDE)),),
    True,
    8,
)


class Public:
    """A session of a version that has no native part apart."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self.run = session.run
        self.run_with_iobinding = session.run_with_iobinding
        self.io_binding = session.io_binding


@pytest.fixture(params=["inner", "public"])
def session(request):
    """An identity of rows, with and without the native part."""
    session = ort.InferenceSession(models.identity(dims=(WIDE,)), providers=["CPUExecutionProvider"])
    return session if request.param == "inner" else Public(session)


def test_the_installed_version_has_its_native_part_apart():
    """Else the short way is closed, and this file has to follow the new version."""
    session = ort.InferenceSession(models.identity(dims=(WIDE,)), providers=["CPUExecutionProvider"])
    assert inner_run(session) == session._sess.run
    assert inner_binding(session) is not None
    assert inner_run(Public(session)) == session.run
    assert inner_binding(Public(session)) is None


def test_a_run_is_the_same_by_both_ways(session):
    """A good input gives its answer, a wrong one the runtime's own text."""
    sent = np.ones((2, WIDE), np.float32)
    np.testing.assert_array_equal(inner_run(session)(["y"], {"x": sent}, None)[0], sent)
    with pytest.raises(Exception, match=f"Got: 4 Expected: {WIDE}"):
        inner_run(session)(["y"], {"x": np.ones((2, 4), np.float32)}, None)


def test_outputs_are_written_where_they_belong_by_both_ways(session):
    """Run after run, with other inputs, shapes and places, each answer lies in its own place and nowhere else."""
    slot = runtime.PlainSlot(session, DESCRIPTION)
    area = np.zeros(1 << 20, np.uint8)
    for items in (1, 2):
        slot.run_into({"x": np.ones((items, WIDE), np.float32)}, area, area.ctypes.data)
    for number, items in enumerate((1, 2, 1, 2, 2)):
        area[:] = 0
        sent = np.full((items, WIDE), number + 1, np.float32)
        part = area[number * 4096 :]
        got = slot.run_into({"x": sent}, part, part.ctypes.data)["y"]
        np.testing.assert_array_equal(got, sent)
        assert got.ctypes.data == part.ctypes.data
        assert np.count_nonzero(area) == np.count_nonzero(sent.view(np.uint8))


def test_nothing_of_a_run_is_held_after_it(session):
    """An input may be shared memory, which has to go when its client does."""
    slot = runtime.PlainSlot(session, DESCRIPTION)
    area = np.zeros(1 << 20, np.uint8)
    sent = np.ones((1, WIDE), np.float32)
    for _ in range(2):
        slot.run_into({"x": sent}, area, area.ctypes.data)
    gone = [weakref.ref(sent), weakref.ref(area)]
    del sent, area
    assert [one() for one in gone] == [None, None]
