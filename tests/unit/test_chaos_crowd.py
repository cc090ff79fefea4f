"""What the callers of the proofs that share a client make of the ends of their requests."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from tests.chaos.crowd import broken_of, outcome_of
from trtd.cli.traffic import Question
from trtd.errors import Overloaded

QUESTION = Question("m", {}, "y", np.ones((1, 2), np.float32))


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (SimpleNamespace(outputs={"y": np.ones((1, 2), np.float32)}), "right"),
        (SimpleNamespace(outputs={"y": np.zeros((1, 2), np.float32)}), "wrong"),
        (SimpleNamespace(outputs={}), "wrong"),
        (Overloaded("full"), "overloaded"),
    ],
)
def test_an_answer_is_compared(answer, outcome):
    """Only the expected output is right; another one, or none, is wrong, and an error is told by its code."""
    assert outcome_of(answer, QUESTION) == outcome


def test_a_proof_is_broken_by_anything_but_right_answers():
    """Wrong answers, errors and callers without any right answer each break it; right answers alone do not."""
    assert broken_of({"threads": Counter(right=3), "tasks": Counter(right=1)}) == []
    broken = broken_of({"threads": Counter(right=3, wrong=1, overloaded=2), "tasks": Counter()})
    assert broken == [
        "1 requests (threads) ended as wrong",
        "2 requests (threads) ended as overloaded",
        "no request (tasks) was answered",
    ]
