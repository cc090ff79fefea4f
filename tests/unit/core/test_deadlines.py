"""The earliest of many moving deadlines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trtd.core.deadlines import Deadlines

KEYS = st.sampled_from("abcde")
INSTANTS = st.integers(0, 20).map(float)


@given(st.lists(st.one_of(st.tuples(KEYS, st.none() | INSTANTS), INSTANTS)))
def test_agrees_with_a_plain_dictionary(steps):
    """However deadlines are set, moved, dropped and taken, the earliest and the due ones are those of a dictionary."""
    deadlines, model = Deadlines(), {}
    for step in steps:
        if isinstance(step, tuple):
            key, deadline = step
            deadlines.set(key, deadline)
            model[key] = deadline
            if deadline is None:
                del model[key]
        else:
            due = sorted((at, key) for key, at in model.items() if at <= step)
            assert sorted(deadlines.take_due(step)) == sorted(key for _, key in due)
            for _, key in due:
                del model[key]
        assert deadlines.next() == min(model.values(), default=None)


def test_due_keys_come_earliest_first():
    """Keys whose deadline has come are given in the order of their deadlines, and once."""
    deadlines = Deadlines()
    for key, deadline in (("late", 3.0), ("early", 1.0), ("middle", 2.0), ("future", 9.0)):
        deadlines.set(key, deadline)
    deadlines.set("middle", 2.5)
    assert deadlines.take_due(5.0) == ["early", "middle", "late"]
    assert deadlines.take_due(5.0) == []
    assert deadlines.next() == 9.0


def test_moving_a_deadline_to_later_keeps_the_store_small():
    """A thousand life signs of one key leave one entry behind."""
    deadlines = Deadlines()
    for i in range(1000):
        deadlines.set("key", float(i))
        deadlines.next()
    assert len(deadlines._heap) == 1
