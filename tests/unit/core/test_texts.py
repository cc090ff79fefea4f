"""Texts that are too long for where they go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtd.core.texts import shorten, shorten_bytes


def test_the_end_stays():
    """Where it is and what is wrong are both there; what stands between them is not."""
    text = f"Load model from /srv/m.onnx failed: {'/src/graph.cc ' * 50}Unsupported model IR version: 99"
    short = shorten(text, 120)
    assert short.startswith("Load model from /srv/m.onnx")
    assert short.endswith("Unsupported model IR version: 99")
    assert len(short) == 120


@pytest.mark.parametrize("most", [20, 21, 22])
def test_a_short_text_is_not_touched(most):
    """Up to the bound nothing is left out."""
    assert shorten("x" * 20, most) == "x" * 20
    assert shorten_bytes(b"x" * 20, most) == "x" * 20
    assert len(shorten("x" * 23, most)) == most


@given(st.text(min_size=30), st.integers(10, 40))
def test_bytes_are_counted_as_such(text, most):
    """However wide the characters are, so many bytes are enough, and what they hold is text."""
    short = shorten_bytes(text.encode("utf-8", "ignore"), most)
    assert len(short.encode()) <= most
