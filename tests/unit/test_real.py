"""The judge of `scripts/real-models`: what it calls equal, close and wrong, and that a model may end its process."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
import pytest

from tests.real import careful
from tests.real.cases import Case, Comparison
from trtd.client import Float8
from trtd.wire.messages import Dtype

CASE = Case("m", "/m.onnx", [])
X = np.array([1.0, np.nan, np.inf], np.float32)


@pytest.mark.parametrize(
    ("got", "counts"),
    [
        ({"y": X}, (1, 0, 0)),
        ({"y": X * np.float32(1.0005)}, (0, 1, 0)),
        ({"y": X * np.float32(1.01)}, (0, 0, 1)),
        ({"y": X[:2]}, (0, 0, 1)),
        ({"y": X.astype(np.float64)}, (0, 0, 1)),
        ({"y": np.array([1.0, 1.0, np.inf], np.float32)}, (0, 0, 1)),
        ({"z": X}, (0, 0, 1)),
        ({"y": X, "z": X}, (0, 0, 1)),
        ({}, (0, 0, 1)),
    ],
)
def test_answers_are_equal_close_or_wrong(got, counts):
    """By bits, then by the tolerance; another name, shape or dtype is wrong whatever is in it."""
    comparison = Comparison()
    comparison.add(CASE, got, {"y": X})
    assert (comparison.equal, comparison.close, len(comparison.wrong)) == counts


def test_whole_numbers_and_other_dtypes_are_never_close():
    """Neither is a label that is one off, nor uint8 where the bits of float8 belong."""
    comparison = Comparison()
    comparison.add(CASE, {"y": np.array([1_000_001])}, {"y": np.array([1_000_000])})
    bits = np.zeros(3, np.uint8)
    comparison.add(CASE, {"y": bits}, {"y": Float8(bits, Dtype.FLOAT8_E5M2)})
    assert len(comparison.wrong) == 2


def work(item: str) -> str:
    if item == "crash":
        os.kill(os.getpid(), signal.SIGFPE)
    if item == "leave":
        sys.exit(3)
    if item == "raise":
        raise ValueError("not this one")
    return item.upper()


def main() -> None:
    """What `careful.each` runs in another process."""
    careful.serve_each(work)


def test_one_that_ends_its_process_is_told_and_the_rest_goes_on():
    """Each item has one result, in order, whatever became of those before it."""
    items = ["a", "crash", "b", "raise", "leave", "crash", "c"]
    assert list(careful.each("tests.unit.test_real", items)) == [
        "A",
        careful.Failed("SIGFPE"),
        "B",
        careful.Failed("ValueError: not this one"),
        careful.Failed("the process ended with 3"),
        careful.Failed("SIGFPE"),
        "C",
    ]
