"""Requests against what a model takes. Refusals as clients see them are tested over a socket (tests/shell)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.served import make_served
from trtd.core.ids import RequestId
from trtd.errors import InvalidInput, Malformed, UnknownModel
from trtd.wire import memo
from trtd.wire.codec import encode_client_message
from trtd.wire.messages import Dtype, HealthRequest, InferRequest, TensorContract, TensorSpec
from trtd.wire.tensors import spec_of, to_frame
from trtd.worker import validate
from trtd.worker.plans import Plan
from trtd.worker.validate import ALONE_FROM_BYTES, Catalogue, Desk, ServedModel


def plan(served: ServedModel, **inputs: np.ndarray) -> Plan:
    return served.plan(tuple(spec_of(name, array) for name, array in inputs.items()))


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_inputs_are_views_and_items_are_counted():
    """A plan reads its arrays without a copy, and knows its first dimension as the number of items."""
    sent = np.arange(12, dtype=np.float32).reshape(3, 4)
    made = plan(make_served(), x=sent)
    inputs = made.read([to_frame(sent)])
    assert made.items == 3
    np.testing.assert_array_equal(inputs["x"], sent)
    assert np.shares_memory(inputs["x"], sent)


@pytest.mark.parametrize(
    ("bytes_more", "copies_inputs", "may_share"), [(0, False, False), (-4, False, True), (0, True, True)]
)
def test_large_requests_run_alone_where_they_are_read_in_place(bytes_more, copies_inputs, may_share):
    """Joining them would be the dearest part of the run; one that copies its inputs joins them for free."""
    columns = (ALONE_FROM_BYTES + bytes_more) // 4
    served = make_served(TensorContract("x", Dtype.FLOAT32, (None, columns)), copies_inputs=copies_inputs)
    assert (plan(served, x=f32(1, columns)).group is not None) == may_share


def test_groups_agree_in_model_and_inner_shapes():
    """Requests may share a batch when model and all shapes but the first dimension agree, in whatever order."""
    two = (TensorContract("a", Dtype.FLOAT32, (None, None)), TensorContract("b", Dtype.FLOAT32, (None, None)))
    served = make_served(*two)
    group = plan(served, a=f32(1, 2), b=f32(1, 3)).group
    assert group is not None
    assert plan(served, b=f32(5, 3), a=f32(5, 2)).group == group
    assert plan(served, a=f32(1, 3), b=f32(1, 2)).group != group
    assert plan(make_served(*two), a=f32(1, 2), b=f32(1, 3)).group != group


def test_what_is_not_batched_or_empty_runs_alone():
    """Requests of a model that is not batched, and those without items, have no group."""
    assert plan(make_served(is_batched=False), x=f32(3, 4)).group is None
    assert plan(make_served(), x=f32(0, 4)).group is None


def test_inputs_that_disagree_in_items_run_alone():
    """Two inputs with different first dimensions share no batch; the model knows what to do."""
    served = make_served(TensorContract("a", Dtype.FLOAT32, (None,)), TensorContract("b", Dtype.FLOAT32, (None,)))
    assert plan(served, a=f32(1), b=f32(2)).group is None
    assert plan(served, a=f32(2), b=f32(2)).group is not None


@pytest.mark.parametrize(
    ("most", "max_items"),
    [(None, 32), (64, 32), (32, 32), (8, 8), (0, 32)],
    ids=["any", "more", "equal", "fewer", "none"],
)
def test_a_batch_is_no_larger_than_what_this_shape_allows(most, max_items):
    """A batch closes at `max_batch`, or at what the model takes of this shape where that is less."""
    asked = []

    def most_of(shapes):
        asked.append(shapes)
        return most

    served = make_served(max_batch=32, most=most_of)
    assert plan(served, x=f32(3, 4)).limits.max_items == max_items
    assert asked == [{"x": (3, 4)}]
    assert plan(make_served(is_batched=False), x=f32(3, 4)).limits.max_items == 1


def test_a_request_may_be_larger_than_a_batch():
    """More items than `max_batch` are for the model to take or not; what it does not take names both bounds."""
    assert plan(make_served(max_batch=8), x=f32(9, 4)).items == 9
    served = make_served(max_batch=8, most=lambda _: 16)
    assert plan(served, x=f32(16, 4)).items == 16
    with pytest.raises(InvalidInput, match=r"got 17 items.* at most 16, whatever max_batch is \(8\)"):
        plan(served, x=f32(17, 4))


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "got inputs none, wanted 'x'"),
        ({"x": f32(1, 4), "y": f32(1)}, "got inputs 'x', 'y', wanted 'x'"),
        ({"y": f32(1, 4)}, "got inputs 'y', wanted 'x'"),
        ({"x": f32(1, 4).astype(np.float16)}, "got float16, wanted float32"),
        ({"x": f32(1, 3)}, r"got shape \[1, 3\], wanted \[\?, 4\]"),
        ({"x": f32(4)}, r"got shape \[4\], wanted \[\?, 4\]"),
    ],
)
def test_refusals_say_what_came_and_what_was_wanted(inputs, text):
    """Wrong names, dtypes, ranks, fixed dimensions and too many items are InvalidInput with both sides."""
    with pytest.raises(InvalidInput, match=text) as caught:
        plan(make_served(), **inputs)
    assert "model m 1" in caught.value.message


def test_frames_must_be_what_the_header_says():
    """A missing frame and one of the wrong size are malformed."""
    made = plan(make_served(), x=f32(1, 4))
    with pytest.raises(Malformed, match="0 tensor frames"):
        made.read([])
    with pytest.raises(Malformed, match="15 bytes"):
        made.read([bytes(15)])


def test_the_newest_version_is_the_last_configured():
    """Without a version the last one of a name is meant; an unknown name or version names what there is."""
    old, new, other = make_served(version="2"), make_served(version="10"), make_served(name="o")
    catalogue = Catalogue([old, new, other])

    def find(model: str, version: str | None = None) -> ServedModel:
        return catalogue.find(InferRequest(RequestId(bytes(16)), model, version, ()))

    assert find("m") is new
    assert find("m", "2") is old
    assert find("o") is other
    with pytest.raises(UnknownModel, match="no model 'm' version '3'; there are: m 2, m 10, o 1"):
        find("m", "3")
    with pytest.raises(UnknownModel, match="no model 'z'; there are"):
        find("z")


def header(number: int, **fields: Any) -> bytes:
    spec = TensorSpec("x", Dtype.FLOAT32, fields.pop("shape", (1, 4)))
    return encode_client_message(InferRequest(RequestId(number.to_bytes(16, "big")), "m", None, (spec,), **fields))


def test_headers_of_one_kind_are_looked_at_once(monkeypatch):
    """A header that differs from an earlier one in its id alone has the same plan and its own id, without decoding."""
    desk = Desk(Catalogue([make_served()]))
    _, first = desk.read(header(1))
    monkeypatch.setattr(validate, "decode_client_message", None)
    request_id, second = desk.read(header(2))
    assert second is first
    assert int.from_bytes(request_id, "big") == 2


def test_headers_of_other_kinds_are_not_mixed_up():
    """Another shape is another plan, a refused header is refused again, and what is no request is malformed."""
    desk = Desk(Catalogue([make_served()]))
    assert desk.read(header(1))[1].items == 1
    assert desk.read(header(2, shape=(3, 4)))[1].items == 3
    for number in (3, 4):
        with pytest.raises(InvalidInput):
            desk.read(header(number, shape=(3, 5)))
    with pytest.raises(Malformed, match="infer requests only"):
        desk.read(encode_client_message(HealthRequest(RequestId(bytes(16)))))


def test_the_desk_forgets_rather_than_grow(monkeypatch):
    """However many kinds of headers come, only so many are remembered, and all are understood."""
    monkeypatch.setattr(memo, "MAX_ENTRIES", 3)
    desk = Desk(Catalogue([make_served()]))
    for items in range(1, 9):
        assert desk.read(header(items, shape=(items, 4)))[1].items == items
    assert len(desk._plans) <= 3
