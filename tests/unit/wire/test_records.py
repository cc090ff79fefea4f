"""Dataclasses as arrays: every annotation is checked, both ways, and the line names the field."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, NewType

import msgpack
import pytest
from hypothesis import given, settings

from tests.support.records import records as record_strategy
from trtd.errors import Malformed, TooLarge
from trtd.wire import records

Name = NewType("Name", str)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True, slots=True)
class Inner:
    share: float
    flag: bool = False


@dataclass(frozen=True, slots=True)
class Outer:
    number: int = 5
    name: Name = Name("n")
    data: bytes = b""
    wait_s: float | None = None
    inner: Inner = field(default_factory=lambda: Inner(0.5))
    maybe: Inner | None = None
    colour: Colour = Colour.RED
    level: Level = Level.LOW
    rows: tuple[tuple[str, int], ...] = ()
    inners: tuple[Inner, ...] = ()


@dataclass(frozen=True, slots=True)
class Unsupported:
    table: dict[str, int]


@dataclass(frozen=True, slots=True)
class Ambiguous:
    value: int | str


def plain(record: Any) -> Any:
    """What the other side unpacks."""
    return msgpack.unpackb(msgpack.packb(records.to_plain(record)), use_list=False)


@given(record_strategy(Outer))
@settings(deadline=None)
def test_any_record_round_trips(record: Outer) -> None:
    """Every kind of field comes back as it was."""
    assert records.from_plain(Outer, plain(record)) == record


FIELDS = ("number", "name", "data", "wait_s", "inner", "maybe", "colour", "level", "rows", "inners")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("number", True, "Outer.number: expected an integer, got a boolean"),
        ("number", 1.0, "Outer.number: expected an integer, got a float"),
        ("number", None, "Outer.number: expected an integer, got nil"),
        ("name", b"n", "Outer.name: expected a string, got binary"),
        ("data", "n", "Outer.data: expected binary, got a string"),
        ("wait_s", 5, "Outer.wait_s: expected a finite float, got an integer"),
        ("wait_s", False, "Outer.wait_s: expected a finite float, got a boolean"),
        ("wait_s", float("nan"), "Outer.wait_s: expected a finite float, got nan"),
        ("wait_s", float("-inf"), "Outer.wait_s: expected a finite float, got -inf"),
        ("inner", None, "Outer.inner: expected an array, got nil"),
        ("inner", (0.5,), "Outer.inner: expected 2 fields, got 1"),
        ("inner", (0.5, True, 1), "Outer.inner: expected 2 fields, got 3"),
        ("inner", (0.5, 1), "Outer.inner.flag: expected a boolean, got an integer"),
        ("maybe", (0.5, None), "Outer.maybe.flag: expected a boolean, got nil"),
        ("maybe", {}, "Outer.maybe: expected an array, got a map"),
        ("colour", "green", "Outer.colour: expected one of red, blue"),
        ("colour", ("red",), "Outer.colour: expected one of red, blue"),
        ("colour", {}, "Outer.colour: expected one of red, blue"),
        ("level", True, "Outer.level: expected one of 1, 2"),
        ("level", 3, "Outer.level: expected one of 1, 2"),
        ("level", 1.0, "Outer.level: expected one of 1, 2"),
        ("rows", "ab", "Outer.rows: expected an array, got a string"),
        ("rows", (("a",),), "Outer.rows[]: expected an array of 2"),
        ("rows", (("a", "1"),), "Outer.rows[][1]: expected an integer, got a string"),
        ("inners", ((0.5, True), (0.5, "yes")), "Outer.inners[].flag: expected a boolean, got a string"),
    ],
)
def test_a_wrong_field_is_refused_by_its_path(name: str, value: Any, line: str) -> None:
    """No value passes for another type, at any depth."""
    values = list(plain(Outer()))
    values[FIELDS.index(name)] = value
    with pytest.raises(Malformed, match=re.escape(line)):
        records.from_plain(Outer, tuple(values))


@pytest.mark.parametrize("values", [(), plain(Outer())[:-1], (*plain(Outer()), 1), None, 5, "x", {}])
def test_a_record_of_the_wrong_length_is_refused(values: Any) -> None:
    """Fields are neither missing nor more than there are."""
    with pytest.raises(Malformed, match="Outer: expected"):
        records.from_plain(Outer, values)


def test_a_whole_number_is_written_as_the_float_that_it_stands_for() -> None:
    """A configuration that says 5 for seconds is sent as 5.0."""
    assert repr(records.to_plain(Inner(5))) == "[5.0, False]"


@pytest.mark.parametrize("share", [float("nan"), float("inf")])
def test_a_float_that_the_other_side_would_refuse_is_not_written(share: float) -> None:
    """A NaN is found where it comes from."""
    with pytest.raises(ValueError, match="cannot be sent: it is not finite"):
        records.to_plain(Inner(share))


def test_arrays_are_bounded() -> None:
    """More entries than the other side takes are not written."""
    with pytest.raises(TooLarge, match="an array has 2049 entries"):
        records.to_plain(Outer(rows=(("a", 1),) * 2049))


@pytest.mark.parametrize("record", [Unsupported({}), Ambiguous(1)])
def test_an_annotation_without_a_codec_is_a_defect(record: Any) -> None:
    """A class that cannot be checked strictly cannot be carried at all."""
    with pytest.raises(TypeError, match="records cannot carry"):
        records.to_plain(record)
