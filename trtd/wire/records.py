"""Frozen dataclasses as msgpack arrays, strictly typed by their annotations: the codec under `trtd.wire.control`.

A dataclass becomes the array of its fields in their order, a tuple an array, an enum its value. Decoding checks every
value against its annotation (bool is no int, a float is finite, arity is exact) and raises `Malformed` with the path
of the field. Annotations may be int, float, str, bytes, bool, enums, dataclasses, `X | None`, `tuple[X, ...]`,
`tuple[A, B]` and NewTypes of these. Each class is examined once.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any

from trtd.errors import Malformed, TooLarge
from trtd.wire.headers import type_name

MAX_ITEMS = 2048
"""Most entries of one array. With msgpack's own limit of 1024 on depth it bounds the memory that a hostile packet can
claim to 16 MiB for an instant."""

ToPlain = Callable[[Any], Any]
FromPlain = Callable[[Any, str], Any]


def to_plain(record: Any) -> list[Any]:
    """The fields of a dataclass as plain values for msgpack.

    Raises:
        ValueError: a float is not finite; the other side would refuse it.
        TooLarge: an array has too many entries.
    """
    return _class_codec(type(record))[0](record)  # type: ignore[no-any-return]  # the codec of a class gives its fields


def from_plain(kind: type[Any], values: Any) -> Any:
    """A dataclass from the plain values of msgpack, arrays as tuples.

    Raises:
        Malformed: the values do not fit the annotations; the line names class and field.
    """
    return _class_codec(kind)[1](values, kind.__name__)


_class_codecs: dict[type[Any], tuple[ToPlain, FromPlain]] = {}


def _class_codec(kind: type[Any]) -> tuple[ToPlain, FromPlain]:
    codec = _class_codecs.get(kind)
    if codec is None:
        codec = _class_codecs[kind] = _make_class_codec(kind)
    return codec


def _make_class_codec(kind: type[Any]) -> tuple[ToPlain, FromPlain]:
    hints = typing.get_type_hints(kind)
    names = tuple(field.name for field in dataclasses.fields(kind))
    codecs = [_codec(hints[name]) for name in names]
    writers = tuple((name, codec[0]) for name, codec in zip(names, codecs, strict=True))
    readers = tuple((name, codec[1]) for name, codec in zip(names, codecs, strict=True))

    def write(record: Any) -> list[Any]:
        return [convert(getattr(record, name)) for name, convert in writers]

    def read(values: Any, path: str) -> Any:
        if type(values) is not tuple:
            raise Malformed(f"{path}: expected an array, got {type_name(values)}")
        if len(values) != len(readers):
            raise Malformed(f"{path}: expected {len(readers)} fields, got {len(values)}")
        return kind(*[check(value, f"{path}.{name}") for (name, check), value in zip(readers, values, strict=True)])

    return write, read


def _codec(hint: Any) -> tuple[ToPlain, FromPlain]:
    if isinstance(hint, typing.NewType):
        return _codec(hint.__supertype__)
    if hint is float:
        return _write_float, _read_float
    if hint in {int, str, bytes, bool}:
        return _same, _read_exactly(hint)
    origin = typing.get_origin(hint)
    if origin in {types.UnionType, typing.Union}:
        return _optional_codec(hint)
    if origin is tuple:
        return _tuple_codec(typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum_codec(hint)
    if dataclasses.is_dataclass(hint):
        return _class_codec(typing.cast("type[Any]", hint))
    raise TypeError(f"records cannot carry {hint}")


def _same(value: Any) -> Any:
    return value


def _write_float(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be sent: it is not finite")
    return float(value)


def _read_float(value: Any, path: str) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    raise Malformed(f"{path}: expected a finite float, got {value if type(value) is float else type_name(value)}")


def _read_exactly(kind: type[Any]) -> FromPlain:
    expected = type_name(kind())

    def read(value: Any, path: str) -> Any:
        if type(value) is not kind:
            raise Malformed(f"{path}: expected {expected}, got {type_name(value)}")
        return value

    return read


def _optional_codec(hint: Any) -> tuple[ToPlain, FromPlain]:
    rest = [arg for arg in typing.get_args(hint) if arg is not type(None)]
    if len(rest) != 1 or len(typing.get_args(hint)) != 2:
        raise TypeError(f"records cannot carry {hint}: of unions, only `X | None`")
    write_value, read_value = _codec(rest[0])

    def write(value: Any) -> Any:
        return None if value is None else write_value(value)

    def read(value: Any, path: str) -> Any:
        return None if value is None else read_value(value, path)

    return write, read


def _tuple_codec(args: tuple[Any, ...]) -> tuple[ToPlain, FromPlain]:
    if len(args) == 2 and args[1] is Ellipsis:
        return _sequence_codec(args[0])
    codecs = [_codec(arg) for arg in args]

    def write(values: Any) -> Any:
        return [codec[0](value) for codec, value in zip(codecs, values, strict=True)]

    def read(values: Any, path: str) -> Any:
        if type(values) is not tuple or len(values) != len(codecs):
            raise Malformed(f"{path}: expected an array of {len(codecs)}")
        return tuple(
            codec[1](value, f"{path}[{index}]") for index, (codec, value) in enumerate(zip(codecs, values, strict=True))
        )

    return write, read


def _sequence_codec(item: Any) -> tuple[ToPlain, FromPlain]:
    write_item, read_item = _codec(item)

    def write(values: Any) -> Any:
        if len(values) > MAX_ITEMS:
            raise TooLarge(f"an array has {len(values)} entries, the most is {MAX_ITEMS}")
        return [write_item(value) for value in values]

    def read(values: Any, path: str) -> Any:
        if type(values) is not tuple:
            raise Malformed(f"{path}: expected an array, got {type_name(values)}")
        item_path = f"{path}[]"
        return tuple([read_item(value, item_path) for value in values])

    return write, read


def _enum_codec(kind: type[Enum]) -> tuple[ToPlain, FromPlain]:
    members: dict[Any, Enum] = {member.value: member for member in kind}

    def write(value: Any) -> Any:
        return value.value

    def read(value: Any, path: str) -> Any:
        member = members.get(value) if type(value) in {str, int} else None
        if member is None:
            raise Malformed(f"{path}: expected one of {', '.join(map(str, members))}")
        return member

    return write, read
