"""Inputs from frames and from shared memory, and what a client that goes on writing there can do: nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.served import make_served
from trtd.errors import ArenaUnknown, Malformed
from trtd.runtime.gather import join
from trtd.wire.messages import Dtype, Place, TensorContract, TensorSpec
from trtd.wire.tensors import to_dtype, to_frame, to_numpy
from trtd.worker.plans import FLOATS, MIN_IN_PLACE_BYTES


def served_for(dtype: Dtype):
    return make_served(TensorContract("x", dtype, (None, 4)))


def in_arena(array: np.ndarray, dtype: Dtype | None = None, name: str = "x") -> TensorSpec:
    return TensorSpec(name, dtype or to_dtype(array.dtype), array.shape, Place.ARENA)


@pytest.mark.parametrize("dtype", list(Dtype))
def test_inputs_in_arenas_are_what_lies_there(memory, arenas, dtype):
    """Every dtype is read right from shared memory, into an array that cannot be written to."""
    sent = np.random.default_rng(1).integers(0, 2, (3, 4)).astype(to_numpy(dtype))
    plan = served_for(dtype).plan((in_arena(sent, dtype),))
    got = plan.read([memory.write(sent, 128)], arenas)["x"]
    assert got.tobytes() == sent.tobytes()
    assert got.dtype == sent.dtype
    assert not got.flags.writeable


@pytest.mark.parametrize("copies_inputs", [False, True])
@pytest.mark.parametrize("columns", [4, MIN_IN_PLACE_BYTES])
@pytest.mark.parametrize("dtype", list(Dtype))
def test_only_harmless_inputs_follow_what_the_client_writes_later(memory, arenas, dtype, columns, copies_inputs):
    """Bools, whole numbers and small floats stay what they were; what the runtime copies itself is left to it."""
    before, after = np.zeros((1, columns), to_numpy(dtype)), np.ones((1, columns), to_numpy(dtype))
    model = make_served(TensorContract("x", dtype, (None, columns)), copies_inputs=copies_inputs)
    inputs = model.plan((in_arena(before, dtype),)).read([memory.write(before)], arenas)
    memory.write(after)
    follows = copies_inputs or (dtype in FLOATS and columns == MIN_IN_PLACE_BYTES)
    np.testing.assert_array_equal(inputs["x"], after if follows and dtype is not Dtype.BOOL else before)


def test_bools_are_checked_in_the_copy(memory, arenas):
    """A byte that no bool has is refused, wherever it lies."""
    plan = served_for(Dtype.BOOL).plan((in_arena(np.zeros((1, 4), np.bool_)),))
    place = memory.write(np.array([0, 1, 2, 1], np.uint8))
    with pytest.raises(Malformed, match="other than 0 and 1"):
        plan.read([place], arenas)


def test_a_batch_does_not_change_after_it_was_joined(memory, arenas):
    """What several requests are joined to is a copy, also of floats in shared memory."""
    sent = np.arange(4, dtype=np.float32).reshape(1, 4)
    model = make_served(copies_inputs=True)
    in_frame = model.plan((TensorSpec("x", Dtype.FLOAT32, (1, 4)),)).read([to_frame(sent * 2)])
    in_memory = model.plan((in_arena(sent),)).read([memory.write(sent)], arenas)
    joined = join([in_frame, in_memory])["x"]
    memory.write(sent * 9)
    np.testing.assert_array_equal(joined, np.concatenate([sent * 2, sent]))


def test_frames_and_arenas_may_be_mixed_in_any_order(memory, arenas):
    """Inputs named in another order than the model's, some in frames and some in memory, are not mixed up."""
    model = make_served(TensorContract("a", Dtype.FLOAT32, (None,)), TensorContract("b", Dtype.INT32, (None,)))
    a, b = np.array([1, 2], np.float32), np.array([3, 4], np.int32)
    plan = model.plan((TensorSpec("b", Dtype.INT32, (2,)), in_arena(a, name="a")))
    inputs = plan.read([to_frame(b), memory.write(a)], arenas)
    other = model.plan((in_arena(a, name="a"), in_arena(b, name="b")))
    assert other.group == plan.group
    both = join([inputs, other.read([memory.write(a, 64), memory.write(b, 128)], arenas)])
    np.testing.assert_array_equal(both["a"], [1, 2, 1, 2])
    np.testing.assert_array_equal(both["b"], [3, 4, 3, 4])


def test_the_area_is_the_last_frame(memory, arenas):
    """A request with an area has one frame more than inputs, and knows the range that it names."""
    sent = np.ones((1, 4), np.float32)
    plan = served_for(Dtype.FLOAT32).plan((TensorSpec("x", Dtype.FLOAT32, (1, 4)),), has_area=True)
    inputs = plan.read([to_frame(sent), memory.ref(4096, 100)], arenas)
    assert (inputs.area.offset, inputs.area.size_bytes, inputs.area.memory.nbytes) == (4096, 100, 100)
    np.testing.assert_array_equal(inputs["x"], sent)
    for frames in ([], [to_frame(sent)], [to_frame(sent), to_frame(sent), memory.ref(0, 64)]):
        with pytest.raises(Malformed):
            plan.read(frames, arenas)


@pytest.mark.parametrize(
    ("frame", "error", "text"),
    [
        (lambda memory: memory.ref(0, 15), Malformed, "its place in an arena has 15 bytes"),
        (lambda memory: memory.ref(0, 17), Malformed, "its place in an arena has 17 bytes"),
        (lambda memory: memory.ref(8, 16), Malformed, "multiple of 64"),
        (lambda memory: memory.ref(memory.size_bytes, 16), Malformed, "ends at"),
        (lambda _: b"\x00" * 23, Malformed, "has 23 bytes"),
        (lambda _: b"\x00" * 24, ArenaUnknown, "no such shared memory"),
    ],
)
def test_wrong_places_are_typed_errors(memory, arenas, frame, error, text):
    """A reference of the wrong size, unaligned, beyond the arena, or to no arena is refused by name."""
    plan = served_for(Dtype.FLOAT32).plan((in_arena(np.zeros((1, 4), np.float32)),))
    with pytest.raises(error, match=text):
        plan.read([frame(memory)], arenas)


def test_without_arenas_nothing_is_found(memory):
    """Where there is no shared memory at all, a reference is unknown, so that the client sends frames."""
    plan = served_for(Dtype.FLOAT32).plan((in_arena(np.zeros((1, 4), np.float32)),))
    with pytest.raises(ArenaUnknown):
        plan.read([memory.ref(0, 16)])
