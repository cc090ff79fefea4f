"""Joining requests to a batch and cutting its outputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtd.errors import ModelFailed
from trtd.runtime.gather import cut, join


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
