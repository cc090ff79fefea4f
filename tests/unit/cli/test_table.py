"""Tables at every width."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trtd.cli.table import Column, fit

COLUMNS = (
    Column("NAME", 0, is_text=True, least=6),
    Column("N", 2),
    Column("CAUSE", 3, is_text=True, least=8),
    Column("GPU", 1, is_rare=True),
)
ROWS = [("a", "100", "killed by SIGKILL", "-"), ("long name", "1", "-", "-")]


def test_without_a_limit_all_is_shown():
    """Columns line up, texts to the left and numbers to the right; a rare column without a value is no column."""
    assert fit(COLUMNS, ROWS, None).lines == [
        "NAME         N  CAUSE",
        "a          100  killed by SIGKILL",
        "long name    1  -",
    ]


def test_a_rare_column_comes_with_its_first_value():
    """One row with something to say brings the column back for all."""
    assert fit(COLUMNS, [*ROWS, ("b", "2", "-", "1G")], None).lines[0].endswith("GPU")


def test_texts_are_cut_before_columns_go():
    """The least important text gives way first, down to its least width; what is cut is told."""
    table = fit(COLUMNS, ROWS, 26)
    assert table.lines[1] == "a          100  killed ..."
    assert (table.hidden, table.cut) == ([], ["CAUSE"])


def test_the_least_important_columns_go_first():
    """Where cutting does not suffice, columns go by their rank, are named, and the others have their whole width."""
    table = fit(COLUMNS, ROWS, 16)
    assert table.lines == ["NAME         N", "a          100", "long name    1"]
    assert table.hidden == ["CAUSE"]
    assert fit(COLUMNS, ROWS, 8).lines == ["NAME", "a", "long ..."]
    assert fit(COLUMNS, ROWS, 8).hidden == ["N", "CAUSE"]


@given(st.lists(st.tuples(*[st.text("ab ", max_size=30)] * 3, st.just("-")), max_size=5), st.integers(1, 90))
def test_no_line_is_longer_than_the_terminal(rows, width):
    """Whatever stands in the cells, every line fits, and there is one for each row and the head."""
    table = fit(COLUMNS, rows, width)
    assert len(table.lines) == len(rows) + 1
    assert max(map(len, table.lines)) <= width
