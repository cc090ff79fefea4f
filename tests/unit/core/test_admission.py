"""The judgement at the door: bounds, deadlines, and an honest word on when to come back."""

from __future__ import annotations

import pytest

from trtd.core.admission import MAX_RETRY_S, Pace, allowed_timeout_s, refuse_for_bounds
from trtd.core.requests import MAX_DISPATCHED, TenantLimits
from trtd.errors import ErrorCode
from trtd.wire.messages import MAX_ENTRIES

LIMITS = TenantLimits(max_requests=10, max_bytes=1000, default_timeout_s=5.0, max_timeout_s=60.0)


@pytest.mark.parametrize(
    ("count", "held_bytes", "payload_bytes", "code"),
    [
        (9, 900, 100, None),
        (10, 0, 1, ErrorCode.OVERLOADED),
        (1, 901, 100, ErrorCode.OVERLOADED),
        (0, 0, 1000, None),
        (0, 0, 1001, ErrorCode.TOO_LARGE),
    ],
)
def test_bounds(count, held_bytes, payload_bytes, code):
    """A request that fits exactly is taken, one more is overload, and one that never fits is too large."""
    refusal = refuse_for_bounds(LIMITS, count, held_bytes, payload_bytes, Pace(), 0.0)
    assert (refusal and refusal.code) == code


def test_an_unknown_pace_gives_no_hint():
    """Before anything was answered nobody knows when there will be room."""
    refusal = refuse_for_bounds(LIMITS, 10, 0, 1, Pace(), 0.0)
    assert refusal is not None
    assert refusal.retry_after_s is None


def test_the_hint_is_the_time_in_which_half_the_backlog_is_answered():
    """At ten answers per second and ten requests held, the hint is half a second."""
    pace = Pace()
    pace.become_busy(100.0)
    pace.count(20, 102.0)
    refusal = refuse_for_bounds(LIMITS, 10, 0, 1, pace, 102.0)
    assert refusal is not None
    assert refusal.retry_after_s == pytest.approx(0.5)


def test_the_pace_forgets_what_is_long_ago():
    """After some seconds only the newer answers count; right after that turn the last window's pace holds."""
    pace = Pace()
    pace.become_busy(0.0)
    pace.count(1, 100.0)
    assert pace.wait_s(1, 100.0) == MAX_RETRY_S
    pace.count(100, 101.0)
    assert pace.wait_s(10, 101.0) == pytest.approx(0.1)


def test_idle_time_is_no_slowness():
    """The pace is measured from when the tenant became busy again, not from its last answer long before."""
    pace = Pace()
    pace.become_busy(0.0)
    pace.become_busy(1000.0)
    pace.count(10, 1001.0)
    assert pace.wait_s(1, 1001.0) == pytest.approx(0.1)


@pytest.mark.parametrize(("timeout_s", "deadline"), [(None, 105.0), (1.0, 101.0), (600.0, 160.0)])
def test_deadlines_come_from_the_request_within_the_limits(timeout_s, deadline):
    """A request's own timeout counts, else the default, and never more than the longest allowed."""
    assert 100.0 + allowed_timeout_s(LIMITS, timeout_s) == deadline


def test_one_dispatch_fits_one_message():
    """The core's bound on requests per dispatch is the wire's bound on entries per message."""
    assert MAX_DISPATCHED == MAX_ENTRIES
