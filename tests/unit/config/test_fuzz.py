"""Whatever stands in a file, a variable or a flag: a configuration, or `InvalidConfig` in single lines."""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.config import ACCOUNTS
from trtd.config.flags import Override
from trtd.config.load import Sources, load
from trtd.config.schema import Leaf, Named, Node, schema
from trtd.config.show import show, toml_value
from trtd.errors import InvalidConfig

NOWHERE = Path("/nowhere")

odd_scalars = (
    st.text(max_size=20)
    | st.integers()
    | st.integers(-(10**6000), 10**6000)
    | st.floats()
    | st.booleans()
    | st.just(datetime.date(2020, 1, 1))
    | st.just(datetime.time(1, 2))
    | st.sampled_from(["", "*", "a\x00b", "\udcff", "0666", "unix:/x", "127.0.0.1:99999", "[::1]:1", "*:5", "[zz]:0"])
)
odd_values = st.recursive(
    odd_scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
)


def near_values(node: Node) -> st.SearchStrategy[Any]:
    """Values that nearly fit a node: right ones, others of the right type, and anything at all."""
    if isinstance(node, Leaf):
        by_type: dict[type, st.SearchStrategy[Any]] = {
            str: st.text(max_size=130) | st.sampled_from([*node.choices, "m.onnx", "1"]),
            bool: st.booleans(),
            int: st.integers(0, 2**52),
            float: st.floats(0, 1e5) | st.integers(0, 100),
            tuple: st.lists(st.sampled_from(["alice", "ml", "7", "nobody-here", ""]), max_size=3),
        }
        right = st.just(node.default) if node.default is not None else st.just(node.example)
        return right | by_type[node.type] | odd_values
    if isinstance(node, Named):
        names = st.sampled_from(["a", "b", "operator", "x" * 63]) | st.text(max_size=5)
        return st.dictionaries(names, near_values(node.item), max_size=2) | odd_values
    optional = {key: near_values(child) for key, child in node.keys.items()}
    return st.fixed_dictionaries({}, optional=optional) | odd_values


near_tables = st.fixed_dictionaries(
    {}, optional={key: near_values(node) for key, node in schema().keys.items() if key != "version"}
)
odd_tables = st.dictionaries(st.text(max_size=8), odd_values, max_size=4)


def outcome(**sources: Any) -> list[str]:
    """Load without any file; the problems, none for a configuration, which must then be shown and loaded alike."""
    given_sources = {"environ": {}, "uid": 1000, "working_dir": NOWHERE, "accounts": ACCOUNTS} | sources
    try:
        loaded = load(Sources(vendor_file=None, system_file=None, **given_sources))
    except InvalidConfig as error:
        return list(error.problems)
    assert show(loaded.config, loaded.origins, with_origin=True)
    return []


def assert_clean(problems: list[str]) -> None:
    """One printable line each, and none of pydantic's words."""
    for problem in problems:
        assert problem.isprintable(), problem
        for word in ("Input should", "pydantic", "valid dictionary", "cannot be used"):
            assert word not in problem


@example(table={"[key]": []})
@given(table=near_tables | odd_tables)
@settings(deadline=None, max_examples=400)
def test_any_table_loads_or_is_refused(table):
    """Tables of any content never raise anything but InvalidConfig, and every problem is one printable line."""
    overrides = tuple(Override("--x", (key,), value) for key, value in table.items())
    assert_clean(outcome(overrides=overrides))


@given(
    environ=st.dictionaries(st.text(max_size=12).map("TRTD_LOG__".__add__) | st.text(max_size=20), st.text(max_size=20))
)
@settings(deadline=None, max_examples=200)
def test_any_environment_loads_or_is_refused(environ):
    """Variables of any name and text never raise anything but InvalidConfig."""
    assert_clean(outcome(environ={key.replace("\x00", ""): value for key, value in environ.items()}))


@given(
    content=st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | st.text("[]{}=.,\"'# \n\\ab1", max_size=40).map(str.encode)
)
@settings(deadline=None, max_examples=300)
def test_any_file_loads_or_is_refused(tmp_path_factory, content):
    """Files of any bytes never raise anything but InvalidConfig."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    assert_clean(outcome(config_file=path))


@given(value=st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
@settings(deadline=None, max_examples=100)
def test_values_are_written_as_toml(value):
    """Any string, number, array or table that is written as TOML reads back as itself."""
    assert tomllib.loads(f"value = {toml_value(value)}")["value"] == value
