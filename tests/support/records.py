"""Strategies for any record that the supervisor's channel carries, made from the annotations of its class."""

from __future__ import annotations

import dataclasses
import typing
from enum import Enum
from typing import Any

from hypothesis import strategies as st


def records(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Instances of a dataclass with every field drawn from its annotation."""
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{field.name: _values(hints[field.name]) for field in dataclasses.fields(kind)})


def _values(hint: Any) -> st.SearchStrategy[Any]:
    if isinstance(hint, typing.NewType):
        return _values(hint.__supertype__)
    if hint is int:
        return st.integers(-(2**63), 2**64 - 1)
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if hint is str:
        return st.text(max_size=8)
    if hint in {bool, bytes, type(None)}:
        return st.from_type(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    if dataclasses.is_dataclass(hint):
        return records(typing.cast("type[Any]", hint))
    args = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        if args[1:] == (Ellipsis,):
            return st.lists(_values(args[0]), max_size=3).map(tuple)
        return st.tuples(*map(_values, args))
    return st.one_of(*map(_values, args))
