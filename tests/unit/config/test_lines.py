"""Line numbers of keys, against what tomllib reads from the same text."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trtd.config.lines import key_lines
from trtd.config.origins import key_text
from trtd.config.show import toml_value

TRICKY = '''\
# [no.table]  x = 1
top = 1   # top2 = 2
  "quoted key".'lit.eral'.bare = """
[not.a.table]
inside = "a\\" string"" """
[ a . "b" ]   # comment with ] and "
list = [ 1, "]", # c = 3
  { x = 1 }, [ 'y = 2' ],
]
inline = { p = 1, q.r = [ { s = 2 } ], "t u" = { v = \'\'\'
w = 1 '\'\'\' } }
last = 2020-01-01 00:00:00
lit = \'\'\'
it's "fine"\'\'\'\'
e = """x"""""
[[many]]
k = 1
[[many]]
k = 2
[a]
z = true'''


def test_tricky_toml():
    """What looks like a key or table inside strings, arrays and comments is none; the real ones are found."""
    assert key_lines(TRICKY) == {
        ("top",): 2,
        ("quoted key",): 3,
        ("quoted key", "lit.eral"): 3,
        ("quoted key", "lit.eral", "bare"): 3,
        ("a",): 6,
        ("a", "b"): 6,
        ("a", "b", "list"): 7,
        ("a", "b", "inline"): 10,
        ("a", "b", "inline", "p"): 10,
        ("a", "b", "inline", "q"): 10,
        ("a", "b", "inline", "q", "r"): 10,
        ("a", "b", "inline", "t u"): 10,
        ("a", "b", "inline", "t u", "v"): 10,
        ("a", "b", "last"): 12,
        ("a", "b", "lit"): 13,
        ("a", "b", "e"): 15,
        ("many",): 16,
        ("many", "k"): 17,
        ("a", "z"): 21,
    }


def test_the_tricky_text_is_toml_with_other_line_ends_too():
    """The text above is what tomllib accepts, and Windows line ends change no line number."""
    tomllib.loads(TRICKY)
    assert key_lines(TRICKY.replace("\n", "\r\n")) == key_lines(TRICKY)


keys = st.text(max_size=8).filter(lambda text: text.isprintable() or text == "") | st.sampled_from(
    ["a", "b-1", "[x]", '"']
)
scalars = st.integers(-9, 9) | st.booleans() | st.text(max_size=12) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
tables = st.dictionaries(keys, values, max_size=5)


def paths(table: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (*at, key)
        if isinstance(value, dict):
            yield from paths(value, (*at, key))


@given(sections=st.dictionaries(keys, tables, max_size=4))
@settings(deadline=None, max_examples=150)
def test_every_key_that_tomllib_reads_has_its_line(sections):
    """For any tables, every key path that tomllib reads is found, and no other, on the line where it was written."""
    lines, expected = [], {}
    for section, table in sections.items():
        lines.append(f"[{key_text((section,))}] # [x]")
        expected[section,] = len(lines)
        for key, value in table.items():
            lines.append(f"  {key_text((key,))} = {toml_value(value)} # y = 1")
            expected |= {(section, key, *rest): len(lines) for rest in [(), *paths({"": value})] if rest[:1] != ("",)}
            expected |= {(section, key, *rest[1:]): len(lines) for rest in paths({"": value})}
    text = "\n".join(lines)
    assert set(paths(tomllib.loads(text))) == set(expected)
    assert key_lines(text) == expected
