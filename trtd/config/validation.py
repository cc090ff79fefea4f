"""Merged tables into a `Config`, or into problems told in our own words; pydantic's texts never leave this module."""

from __future__ import annotations

import datetime
from typing import Any

from pydantic import ValidationError

from trtd.config.environment import is_text
from trtd.config.model import CONFIG_VERSION, Config
from trtd.config.origins import MAX_TOLD, Problem, key_text, quoted
from trtd.config.schema import KeyPath, Leaf, Named, Node, find, unit
from trtd.config.suggestions import nearest, unknown_key
from trtd.core.quantities import BYTES, SECONDS

UNITS = {"bytes": tuple(BYTES), "seconds": tuple(SECONDS)}
"""What may stand behind a number, by the unit of a key."""
_MOST_SHOWN = 60
_MOST_SHOWN_BITS = 128


def version_problem(table: dict[str, Any]) -> str | None:
    """What is wrong with the version that a layer claims, if anything; every layer is asked, before they are merged."""
    version = table.get("version", CONFIG_VERSION)
    if type(version) is int and version == CONFIG_VERSION:
        return None
    return f"this trtd reads version {CONFIG_VERSION} of the configuration, not {shown(version)}"


def validate(table: dict[str, Any]) -> Config | list[Problem]:
    """The configuration, or all that is wrong with single keys."""
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        told = [_problem(detail["type"], detail["loc"], table) for detail in details[:MAX_TOLD]]
        # The rest is only counted: suggestions take their time.
        return [*told, *(Problem(_keys(detail["loc"]), "cannot be used") for detail in details[MAX_TOLD:])]


def _keys(location: tuple[int | str, ...]) -> KeyPath:
    return tuple(str(part) for part in location)


def _problem(kind: str, location: tuple[int | str, ...], table: dict[str, Any]) -> Problem:
    if kind == "extra_forbidden":
        path = _keys(location)
        return Problem(path, unknown_key(path))
    # pydantic's mark for a dict's key; a table of ours can bear that name only where every name is unknown.
    is_about_name = location[-1:] == ("[key]",)
    path = tuple(part for part in location if isinstance(part, str) and part != "[key]")
    node = find(path)
    if is_about_name:
        around = find(path[:-1])
        wanted = around.name_expectation if isinstance(around, Named) else "another name"
        return Problem(path, f"cannot be a name; it must be {wanted}")
    if node is None:
        return Problem(path, "cannot be used")
    if kind == "missing":
        return Problem(path, _missing(path, node))
    value = _value_at(table, location)
    if isinstance(node, Named) and isinstance(value, dict):
        return Problem(path, _missing(path, node))
    return Problem(path, _wrong(path, node, value))


def _missing(path: KeyPath, node: Node) -> str:
    if isinstance(node, Leaf):
        return f"missing, must be {node.expectation}"
    return f"missing, needs at least one table [{key_text(path)}.NAME]"


def _wrong(path: KeyPath, node: Node, value: Any) -> str:
    if not isinstance(node, Leaf):
        return f"must be a table, not {shown(value)}"
    if isinstance(value, str) and not is_text(value):
        return f"is not UTF-8 text: {shown(value)}"
    text = f"must be {node.expectation}, not {shown(value)}"
    units = UNITS.get(unit(path)) if isinstance(value, str) and node.type in (int, float) else None
    if units is not None:
        return f"{text}; a string has to be a number with one of the units {', '.join(units)}"
    meant = nearest(value, node.choices) if isinstance(value, str) else None
    return text + (f', did you mean "{meant}"?' if meant else "")


def _value_at(table: Any, location: tuple[int | str, ...]) -> Any:
    for part in location:
        table = table[part]
    return table


def shown(value: Any) -> str:
    """A value as one recognises it, in few characters."""
    if isinstance(value, str):
        return quoted(value if len(value) <= _MOST_SHOWN else value[:_MOST_SHOWN] + "...")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > _MOST_SHOWN_BITS:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, datetime.date | datetime.time):
        return f"the date or time {value}"
    return "a table" if isinstance(value, dict) else "an array"
