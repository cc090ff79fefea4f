"""Joining requests to a batch and cutting its outputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtd.errors import ModelFailed
from trtd.runtime.gather import cut, join, joined_shapes
from trtd.runtime.inputs import Inputs, Layout
from trtd.wire.tensors import spec_of, to_frame


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_each_request_gets_its_own_items_back(counts):
    """What is joined and cut again is what it was, request by request."""
    values = iter(range(1000))
    requests = [
        {
            "a": np.array([[next(values)] * 3 for _ in range(count)], np.int64),
            "b": np.array([next(values) for _ in range(count)], np.float32),
        }
        for count in counts
    ]
    answers = cut(join(requests), requests)
    assert len(answers) == len(requests)
    for request, answer in zip(requests, answers, strict=True):
        for name, array in request.items():
            np.testing.assert_array_equal(answer[name], array)


def as_frames(request: dict[str, np.ndarray]) -> Inputs:
    specs = tuple(spec_of(name, array) for name, array in request.items())
    return Inputs(Layout(specs, len(request["a"])), [to_frame(array) for array in request.values()])


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=8), kinds=st.lists(st.booleans(), min_size=8))
def test_frames_are_joined_as_arrays_are(counts, kinds):
    """Requests that are frames, arrays or both in one batch give the same inputs, shapes and rows."""
    requests = [
        {"a": np.full((count, 3), number, np.int64), "b": np.arange(count, dtype=np.float32) + number}
        for number, count in enumerate(counts)
    ]
    mixed = [as_frames(one) if is_frames else one for one, is_frames in zip(requests, kinds, strict=False)]
    joined = join(mixed)
    assert list(joined) == ["a", "b"]
    for name, array in join(requests).items():
        np.testing.assert_array_equal(joined[name], array)
        assert joined[name].dtype == array.dtype
    shapes = joined_shapes(mixed, ["b", "a"])
    assert list(shapes) == ["b", "a"]
    assert shapes == {name: array.shape for name, array in joined.items()}
    for request, answer in zip(requests, cut(joined, mixed), strict=True):
        np.testing.assert_array_equal(answer["a"], request["a"])


@pytest.mark.parametrize("counts", [[2, 2, 2], [1, 1], [1, 2], [0, 0]])
def test_requests_of_one_header_are_cut_as_others_are(counts):
    """Where all requests have one layout, their rows are counted without a look at each; the answers are the same."""
    requests = [as_frames({"a": np.full((count, 3), number, np.int64)}) for number, count in enumerate(counts)]
    layouts = {request.layout.items: request.layout for request in requests}
    shared = [Inputs(layouts[request.layout.items], request.frames) for request in requests]
    for got, request in zip(cut(join(shared), shared), requests, strict=True):
        np.testing.assert_array_equal(got["a"], request["a"])
    assert joined_shapes(shared, ["a"]) == {"a": (sum(counts), 3)}


def test_rows_are_a_sequence():
    """The answers of a batch can be counted, indexed from both ends, sliced and iterated."""
    requests = [{"x": np.full(count, count)} for count in (1, 2, 3)]
    rows = cut({"y": np.array([1, 2, 2, 3, 3, 3])}, requests)
    assert [list(row["y"]) for row in rows] == [[1], [2, 2], [3, 3, 3]]
    assert list(rows[-1]["y"]) == [3, 3, 3]
    assert list(rows[-3]["y"]) == [1]
    assert [len(row["y"]) for row in rows[1:]] == [2, 3]
    with pytest.raises(IndexError):
        rows[3]


def test_a_lone_request_is_not_copied():
    """One request passes both ways as the very same arrays, whatever its outputs' shapes are."""
    request = {"x": np.ones((2, 2))}
    assert join([request]) is request
    scalar = {"y": np.array(1.0)}
    assert cut(scalar, [request])[0] is scalar


@pytest.mark.parametrize("output", [np.ones((3, 2)), np.array(1.0)])
def test_outputs_that_do_not_count_items_are_refused(output):
    """When an output has not one row per item of the batch, no request is given another one's rows."""
    requests = [{"x": np.ones((1, 2))}, {"x": np.ones((1, 2))}]
    with pytest.raises(ModelFailed, match="batch of 2 items"):
        cut({"y": output}, requests)
