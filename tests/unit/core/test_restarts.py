"""Backoff delays and the death tally."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtd.core.restarts import Death, RestartPolicy, backoff_s, is_over_budget, tally_death

STEADY = RestartPolicy(base_s=0.1, cap_s=30.0, jitter=0.0)


@pytest.mark.parametrize(
    ("failures", "delay_s"),
    [(0, 0.0), (1, 0.0), (2, 0.1), (3, 0.2), (4, 0.4), (10, 25.6), (11, 30.0), (12, 30.0), (100_000, 30.0)],
)
def test_delay_doubles_up_to_the_cap(failures, delay_s):
    """The first restart is immediate, the second waits base_s, and each further one twice as long, at most cap_s."""
    assert backoff_s(STEADY, failures, 0.5) == pytest.approx(delay_s)


@pytest.mark.parametrize(("draw", "delay_s"), [(0.0, 0.8), (0.5, 1.0), (0.75, 1.1)])
def test_jitter_is_decided_by_the_draw(draw, delay_s):
    """A draw of 0 shortens the delay by the whole jitter, one half leaves it alone, and more lengthens it."""
    assert backoff_s(RestartPolicy(base_s=1.0, jitter=0.2), 2, draw) == pytest.approx(delay_s)


@given(
    st.integers(0, 10_000),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.001, 100),
    st.floats(0.001, 1000),
    st.floats(0, 0.99),
)
def test_delay_is_never_negative_nor_above_the_cap(failures, draw, base_s, cap_s, jitter):
    """Whatever the policy and the draw, the delay lies between 0 and cap_s, and only the first is 0."""
    delay_s = backoff_s(RestartPolicy(base_s=base_s, cap_s=cap_s, jitter=jitter), failures, draw)
    assert 0.0 <= delay_s <= cap_s
    assert (delay_s == 0.0) == (failures <= 1)


def tally(policy, deaths, *instants):
    """The tally with deaths at these instants."""
    for at in instants:
        deaths = tally_death(policy, deaths, Death(at, 1))
    return deaths


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(0, 8))
def test_tally_gives_the_verdict_of_the_whole_history(gaps, budget):
    """However long the history, the bounded tally judges as counting all deaths in the window would."""
    policy = RestartPolicy(budget=budget, window_s=60.0)
    deaths, history, now = (), [], 0.0
    for gap in gaps:
        now += gap
        history.append(now)
        deaths = tally(policy, deaths, now)
        assert len(deaths) <= budget + 1
        assert is_over_budget(policy, deaths) == (sum(at > now - 60.0 for at in history) > budget)


def test_budget_is_what_is_still_restarted():
    """With a budget of two, the third death in the window is one too many."""
    policy = RestartPolicy(budget=2, window_s=10.0)
    deaths = tally(policy, (), 1.0, 2.0)
    assert not is_over_budget(policy, deaths)
    assert is_over_budget(policy, tally(policy, deaths, 3.0))
    assert not is_over_budget(policy, tally(policy, deaths, 11.0))
