"""The judge of the long proofs: each kind of broken promise is found."""

from __future__ import annotations

import pytest

from tests.chaos.figures import quantile
from tests.chaos.history import RIGHT, WRONG, History, judge
from trtd.errors import ErrorCode

TIMEOUT_S = 10.0


def make_history(*ends: tuple[float, str]) -> History:
    """A history with one request for each end: how long it took, and its outcome."""
    history = History("a", TIMEOUT_S)
    for took_s, outcome in ends:
        history.ended(history.sent(bytes(16), 100.0), 100.0 + took_s, outcome, generation=1)
    return history


def test_a_flawless_history_breaks_nothing():
    """Right answers within the deadline are fine, and are counted."""
    judgement = judge([make_history((1.0, RIGHT), (TIMEOUT_S, RIGHT)), make_history((0.5, RIGHT))])
    assert judgement.broken() == []
    assert judgement.figures()["right"] == 3


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        ((), "no request was sent"),
        (((1.0, WRONG),), "1 requests ended as wrong"),
        (((1.0, RIGHT), (1.0, ErrorCode.WORKER_LOST)), "1 requests ended as worker_lost"),
        (((TIMEOUT_S + 5, RIGHT),), "1 requests answered after deadline and grace"),
    ],
)
def test_a_broken_promise_is_told(ends, line):
    """Wrong answers, errors, lateness and silence of the callers themselves are told with their number."""
    assert judge([make_history(*ends)]).broken() == [line]


def test_a_request_without_an_answer_is_told():
    """A request that never ended is lost."""
    history = make_history((1.0, RIGHT))
    history.sent(bytes(16), 200.0)
    assert judge([history]).broken() == ["1 requests never answered"]


def test_a_second_answer_is_told():
    """A request that ended twice was answered twice."""
    history = make_history((1.0, RIGHT))
    history.ended(0, 102.0, RIGHT)
    assert judge([history]).broken() == ["1 requests answered twice"]


def test_an_error_that_the_run_causes_may_be_allowed():
    """Refusals during a drain break nothing where drains are what the run is about."""
    judgement = judge([make_history((0.1, ErrorCode.DRAINING))])
    assert judgement.broken({ErrorCode.DRAINING}) == []
    assert judgement.broken() == ["1 requests ended as draining"]


def test_the_first_right_answer_after_an_instant_is_found():
    """Earlier answers, errors and answers of an older generation are passed over."""
    history = make_history((1.0, RIGHT), (2.0, ErrorCode.DRAINING), (3.0, RIGHT))
    history.ended(history.sent(bytes(16), 100.0), 104.0, RIGHT, generation=2)
    assert history.first_right_after(101.5) == 103.0
    assert history.first_right_after(101.5, generation=2) == 104.0
    assert history.first_right_after(105.0) is None


@pytest.mark.parametrize(("q", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100)])
def test_quantiles_are_values_that_were_seen(q, expected):
    """The p99 of 100 values is the 99th, not one between."""
    assert quantile(range(100, 0, -1), q) == expected


def test_a_quantile_of_nothing_is_zero():
    """No values, no quantile."""
    assert quantile([], 0.99) == 0.0
