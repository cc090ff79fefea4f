"""Turns among tenants, and the order within one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.desk import make_request
from trtd.core.scheduling import DeficitRoundRobin, TenantQueue

QUANTUM = 100


def make_turns(**weights: int) -> DeficitRoundRobin[str]:
    """Turns of 100 per weight, all keys active."""
    turns: DeficitRoundRobin[str] = DeficitRoundRobin(QUANTUM)
    for key, weight in weights.items():
        turns.add(key, weight)
        turns.activate(key)
    return turns


def serve(turns: DeficitRoundRobin[str], cost: float, times: int) -> list[str]:
    """Who is served, when every item costs the same."""
    served = []
    for _ in range(times):
        key = turns.next()
        assert key is not None
        turns.charge(key, cost)
        served.append(key)
    return served


def test_nobody_active_nobody_next():
    """Without an active key there is no turn."""
    turns = make_turns(a=1)
    turns.deactivate("a")
    assert turns.next() is None


def test_a_key_keeps_its_turn_until_its_allowance_is_used_up():
    """A turn of 100 takes two items of 50, then the next key has its turn."""
    assert serve(make_turns(a=1, b=1), 50, 6) == ["a", "a", "b", "b", "a", "a"]


def test_asking_again_does_not_change_whose_turn_it_is():
    """`next` without `charge` names the same key and grants nothing twice."""
    turns = make_turns(a=1, b=1)
    assert [turns.next() for _ in range(5)] == ["a"] * 5
    assert turns.allowance("a") == QUANTUM


def test_weights_share_out_the_service():
    """Weight 3 gets three times the items of weight 1."""
    served = serve(make_turns(a=3, b=1), 100, 40)
    assert served.count("a") == 30


def test_a_changed_weight_counts_from_the_next_turn():
    """After `set_weight` the shares follow the new weights."""
    turns = make_turns(a=1, b=1)
    turns.set_weight("b", 4)
    served = serve(turns, 100, 50)
    assert served.count("b") == 40


def test_an_item_larger_than_a_turn_is_paid_from_later_turns():
    """Who takes 1000 at once waits while the other takes as much in small items."""
    turns = make_turns(a=1, b=1)
    assert turns.next() == "a"
    turns.charge("a", 1000)
    assert serve(turns, 100, 9) == ["b"] * 9
    assert "a" in serve(turns, 100, 2)


def test_debt_survives_a_pause_but_not_the_end_of_the_busy_period():
    """A key in debt cannot shed it by pausing while others are busy; when nobody is busy, everybody starts anew."""
    turns = make_turns(a=1, b=1)
    assert turns.next() == "a"
    turns.charge("a", 1000)
    turns.deactivate("a")
    turns.activate("a")
    assert serve(turns, 100, 5) == ["b"] * 5
    turns.deactivate("a")
    turns.deactivate("b")
    turns.activate("a")
    turns.activate("b")
    assert turns.next() == "a"
    assert turns.allowance("a") == QUANTUM


def test_credit_is_not_saved():
    """A key that pauses with allowance left gets no more than a fresh turn when it comes back."""
    turns = make_turns(a=1, b=1)
    assert turns.next() == "a"
    turns.charge("a", 10)
    turns.deactivate("a")
    assert turns.next() == "b"
    turns.activate("a")
    turns.charge("b", 100)
    assert turns.next() == "a"
    assert turns.allowance("a") == QUANTUM


def test_when_all_are_deep_in_debt_the_next_turn_is_found_at_once():
    """Debts of a trillion turns are granted in one step, and the smaller debt is served first."""
    turns = make_turns(a=1, b=1)
    turns.charge("a", QUANTUM * 2e12)
    turns.charge("b", QUANTUM * 1e12)
    assert turns.next() == "b"


def test_a_key_that_stops_in_its_turn_passes_the_turn_to_the_next():
    """Who has nothing more to do leaves in the middle of the turn; the one behind it is next, with a full allowance."""
    turns = make_turns(a=1, b=1, c=1)
    assert turns.next() == "a"
    turns.deactivate("a")
    assert turns.next() == "b"
    assert turns.allowance("b") == QUANTUM


def test_a_removed_key_has_no_turn():
    """Removing the key whose turn it is passes the turn on; adding it again works."""
    turns = make_turns(a=1, b=1)
    assert turns.next() == "a"
    turns.remove("a")
    assert turns.next() == "b"
    assert "a" not in turns
    turns.add("a", 1)
    assert not turns.is_active("a")


@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_is_positive(weight):
    """A weight of zero or less is a ValueError, as is a key added twice."""
    turns = make_turns(a=1)
    with pytest.raises(ValueError, match="positive"):
        turns.set_weight("a", weight)
    with pytest.raises(ValueError, match="known"):
        turns.add("a", 1)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 10), min_size=2),
    st.lists(st.integers(1, 500), min_size=1, max_size=300),
)
def test_service_per_weight_never_differs_by_more_than_a_turn_and_an_item(weights, costs):
    """At every instant, cost divided by weight differs between two active keys by at most one quantum plus one item."""
    turns = make_turns(**weights)
    spent = dict.fromkeys(weights, 0)
    for cost in costs:
        key = turns.next()
        assert key is not None
        turns.charge(key, cost)
        spent[key] += cost
        shares = [spent[key] / weight for key, weight in weights.items()]
        assert max(shares) - min(shares) <= QUANTUM + max(costs)


def test_higher_priority_leaves_first_then_the_older_one():
    """Within one priority requests leave in the order of their arrival; a higher priority goes before."""
    queue = TenantQueue()
    requests = [make_request(priority=priority) for priority in (0, 2, -1, 0, 2)]
    for request in requests:
        queue.push(request)
    expected = [requests[index] for index in (1, 4, 0, 3, 2)]
    assert list(queue) == expected
    assert [queue.pop() for _ in requests] == expected
    with pytest.raises(IndexError):
        queue.pop()


def test_what_is_given_back_goes_before_its_equals():
    """A request pushed to the front leaves before others of its priority, after higher ones."""
    queue = TenantQueue()
    waiting, urgent, returned = make_request(), make_request(priority=1), make_request()
    for request in (waiting, urgent):
        queue.push(request)
    queue.push_front(returned)
    assert [queue.pop() for _ in range(3)] == [urgent, returned, waiting]


def test_any_request_can_be_taken_out():
    """Removing one from the middle leaves the others in order."""
    queue = TenantQueue()
    requests = [make_request() for _ in range(3)]
    for request in requests:
        queue.push(request)
    queue.remove(requests[1])
    assert len(queue) == 2
    assert list(queue) == [requests[0], requests[2]]


def test_no_priority_starves():
    """Under endless urgent requests a normal one leaves within TURNS_PER_OLDEST pops."""
    queue = TenantQueue()
    low = make_request(received_at=1.0)
    queue.push(low)
    popped = []
    while low not in popped:
        queue.push(make_request(priority=7, received_at=2.0))
        popped.append(queue.pop())
    assert len(popped) == TenantQueue.TURNS_PER_OLDEST
