"""Requests against what a model takes. Refusals as clients see them are tested over a socket (tests/shell)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.worker import make_model_settings
from trtd.core.ids import RequestId
from trtd.errors import InvalidInput, Malformed, UnknownModel
from trtd.wire.messages import Dtype, InferRequest, ModelDescription, TensorContract
from trtd.wire.tensors import spec_of, to_frame
from trtd.worker.validate import Catalogue, ServedModel


class Described:
    """A model that is only its description."""

    def __init__(self, description: ModelDescription) -> None:
        self.description = description


def make_served(
    *inputs: TensorContract, name: str = "m", version: str = "1", is_batched: bool = True, max_batch: int = 8
) -> ServedModel:
    """A served model; by default `x` float32 [N, 4] in batches of up to 8."""
    contracts = inputs or (TensorContract("x", Dtype.FLOAT32, (None, 4)),)
    description = ModelDescription(name, version, contracts, contracts, is_batched, max_batch if is_batched else 0)
    model: Any = Described(description)
    return ServedModel(model, make_model_settings("m", name=name, version=version, max_batch=max_batch))


def admit(served: ServedModel, **inputs: np.ndarray) -> Any:
    specs = [spec_of(name, array) for name, array in inputs.items()]
    return served.admit(specs, [to_frame(array) for array in inputs.values()])


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_inputs_are_views_and_items_are_counted():
    """An admitted request holds its arrays without a copy, and its first dimension as the number of items."""
    sent = np.arange(12, dtype=np.float32).reshape(3, 4)
    admitted = admit(make_served(), x=sent)
    assert admitted.items == 3
    np.testing.assert_array_equal(admitted.inputs["x"], sent)
    assert np.shares_memory(admitted.inputs["x"], sent)


def test_groups_agree_in_model_and_inner_shapes():
    """Requests may share a batch when model and all shapes but the first dimension agree, in whatever order."""
    two = (TensorContract("a", Dtype.FLOAT32, (None, None)), TensorContract("b", Dtype.FLOAT32, (None, None)))
    served = make_served(*two)
    group = admit(served, a=f32(1, 2), b=f32(1, 3)).group
    assert group is not None
    assert admit(served, b=f32(5, 3), a=f32(5, 2)).group == group
    assert admit(served, a=f32(1, 3), b=f32(1, 2)).group != group
    assert admit(make_served(*two), a=f32(1, 2), b=f32(1, 3)).group != group


def test_what_is_not_batched_or_empty_runs_alone():
    """Requests of a model that is not batched, and those without items, have no group."""
    assert admit(make_served(is_batched=False), x=f32(3, 4)).group is None
    assert admit(make_served(), x=f32(0, 4)).group is None


def test_inputs_must_agree_in_items():
    """Two inputs with different first dimensions are refused by name and number."""
    served = make_served(TensorContract("a", Dtype.FLOAT32, (None,)), TensorContract("b", Dtype.FLOAT32, (None,)))
    with pytest.raises(InvalidInput, match="'a' has 1 and input 'b' has 2"):
        admit(served, a=f32(1), b=f32(2))


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "got inputs none, wanted 'x'"),
        ({"x": f32(1, 4), "y": f32(1)}, "got inputs 'x', 'y', wanted 'x'"),
        ({"y": f32(1, 4)}, "got inputs 'y', wanted 'x'"),
        ({"x": f32(1, 4).astype(np.float16)}, "got float16, wanted float32"),
        ({"x": f32(1, 3)}, r"got shape \[1, 3\], wanted \[\?, 4\]"),
        ({"x": f32(4)}, r"got shape \[4\], wanted \[\?, 4\]"),
        ({"x": f32(9, 4)}, "got 9 items in one request, wanted at most 8"),
    ],
)
def test_refusals_say_what_came_and_what_was_wanted(inputs, text):
    """Wrong names, dtypes, ranks, fixed dimensions and too many items are InvalidInput with both sides."""
    with pytest.raises(InvalidInput, match=text) as caught:
        admit(make_served(), **inputs)
    assert "model m 1" in caught.value.message


def test_frames_must_be_what_the_header_says():
    """A missing frame and one of the wrong size are malformed."""
    served = make_served()
    spec = spec_of("x", f32(1, 4))
    with pytest.raises(Malformed, match="0 tensor frames"):
        served.admit([spec], [])
    with pytest.raises(Malformed, match="15 bytes"):
        served.admit([spec], [bytes(15)])


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
