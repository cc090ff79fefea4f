"""Texts of TensorRT are kept bounded and once each. No TensorRT is needed."""

from __future__ import annotations

from trtd.runtime.tensorrt.recorder import MAX_CHARS, MAX_ENTRIES, ErrorBook


def test_the_same_text_is_kept_once_until_it_is_taken():
    """TensorRT often reports a failure twice; after it was taken, the same text is news again."""
    book = ErrorBook()
    assert book.note(1, "a\nb")
    assert not book.note(1, "a  b")
    assert (len(book), book.repeated, book.entry(0), book.entry(1)) == (1, 1, (1, "a b"), None)
    assert book.take() == ["a b"]
    assert book.take() == []
    assert book.note(1, "a b")


def test_it_is_bounded():
    """Neither many texts nor long ones use memory without end; that some are missing is known until they are taken."""
    book = ErrorBook()
    for number in range(MAX_ENTRIES + 5):
        book.note(1, f"{number} " + "x" * 1000)
    assert len(book) == MAX_ENTRIES
    assert book.overflowed
    assert {len(text) for text in book.take()} == {MAX_CHARS}
    assert not book.overflowed
