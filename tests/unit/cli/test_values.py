"""How lengths of time and sizes look."""

from __future__ import annotations

import pytest

from trtd.cli import values


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0, "0us"), (0.000_012_4, "12us"), (0.000_999_9, "1ms"), (0.0015, "1.5ms"), (0.9994, "999ms"),
        (0.9999, "1s"), (59.0, "59s"), (60, "1m"), (3599, "60m"), (7200, "2h"), (86_400 * 3, "3d"),
    ],
)  # fmt: skip
def test_lengths_of_time(seconds, text):
    """A length of time is short and has the unit that suits it."""
    assert values.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0B"), (1023, "1023B"), (2048, "2K"), (1024**4 * 3, "3.0T")])
def test_sizes(count, text):
    """A size has the binary unit that suits it."""
    assert values.size(count) == text


@pytest.mark.parametrize(
    ("text", "width", "shown"), [("abcdef", 6, "abcdef"), ("abcdefg", 6, "abc..."), ("abcd", 2, ".."), ("", 0, "")]
)
def test_cut_texts_say_so(text, width, shown):
    """A text that is too long ends with an ellipsis and is never longer than it may be."""
    assert values.cut(text, width) == shown
