"""Whether to look for a moment before sleeping."""

from __future__ import annotations

import pytest

from trtd.core.polling import CROWDED_FOR_S, CROWDED_S, BusyPoll

LIMIT_S = 0.0003


def test_nothing_is_looked_for_before_anything_is_known():
    """The first wait sleeps at once."""
    assert BusyPoll(LIMIT_S).window_s(1.0) == 0.0


@pytest.mark.parametrize(("waited_s", "window_s"), [(0.0, LIMIT_S), (0.0002, LIMIT_S), (0.0003, 0.0), (5.0, 0.0)])
def test_the_last_wait_tells_what_the_next_one_is_like(waited_s, window_s):
    """After a wait that was shorter than the limit it pays to look for so long, after any other one it does not."""
    poll = BusyPoll(LIMIT_S)
    for before in (0.0, 5.0):
        poll.note_waited(before)
        poll.note_waited(waited_s)
        assert poll.window_s(1.0) == window_s


def test_a_limit_of_0_never_looks():
    """Where it is switched off, not even an immediate arrival makes it look."""
    poll = BusyPoll(0.0)
    poll.note_waited(0.0)
    assert poll.window_s(1.0) == 0.0


def test_where_others_want_the_processor_it_sleeps_for_a_while():
    """A yield that lasts for a slice ends the looking for a tenth of a second; a short yield does not."""
    poll = BusyPoll(LIMIT_S)
    poll.note_waited(0.0)
    assert poll.note_yielded(CROWDED_S / 2, 1.0)
    assert poll.window_s(1.0) == LIMIT_S
    assert not poll.note_yielded(CROWDED_S, 1.0)
    poll.note_waited(0.0)
    assert poll.window_s(1.0 + CROWDED_FOR_S / 2) == 0.0
    assert poll.window_s(1.0 + CROWDED_FOR_S) == LIMIT_S
