"""The configuration's models as a tree of keys: what each is, what it expects in words, and when a change counts.

Everything that speaks about keys reads this tree: problems, suggestions, environment variables, relative paths, the
sample and `show`. So a key that is added to `trtd.config.model` appears in all of them.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trtd.config.model import Config, Expect, FileName, Reload

KeyPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A key with a value.

    Attributes:
        type: of the value: str, bool, int, float, or tuple for an array of strings.
        expectation: what the value has to be, in words that follow "must be".
        choices: the only values, for a string that has few.
        is_file_name: whether a relative value is resolved.
        is_required: whether it has no default.
        default: as a plain value; None for a key that may be absent.
        example: a value for the sample, where the default is none.
        description: meaning, in one line.
        reload: when a changed value counts.
    """

    type: type
    expectation: str
    choices: tuple[str, ...]
    is_file_name: bool
    is_required: bool
    default: Any
    example: Any
    description: str
    reload: Reload


@dataclass(frozen=True, slots=True)
class Section:
    """A table with known keys, in the order of the model; an optional one may be absent as a whole."""

    keys: dict[str, Node]
    is_optional: bool
    description: str


@dataclass(frozen=True, slots=True)
class Named:
    """A table whose keys are names that the operator chooses.

    Attributes:
        name_expectation: what a name has to be.
        item: what stands under each name.
        example: names and values for the sample; empty where `item` is a section.
        is_required: whether it must have an entry.
        description: meaning, in one line.
    """

    name_expectation: str
    item: Node
    example: dict[str, Any]
    is_required: bool
    description: str


Node = Leaf | Section | Named


@functools.cache
def schema() -> Section:
    """The tree of the whole configuration."""
    return _section(Config, is_optional=False)


def find(path: KeyPath) -> Node | None:
    """The node of a key path, None for a key that does not exist."""
    node: Node | None = schema()
    for key in path:
        if isinstance(node, Section):
            node = node.keys.get(key)
        elif isinstance(node, Named):
            node = node.item
        else:
            return None
    return node


def leaves(node: Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Leaf]]:
    """Every leaf with its path; `NAME` stands for a name that the operator chooses."""
    if isinstance(node, Leaf):
        yield path, node
    elif isinstance(node, Named):
        yield from leaves(node.item, (*path, "NAME"))
    else:
        for key, child in node.keys.items():
            yield from leaves(child, (*path, key))


def unit(path: KeyPath) -> str:
    """The unit of a key, from the end of its name; empty for a key without one."""
    return {"_s": "seconds", "_bytes": "bytes"}.get("_" + path[-1].rpartition("_")[2], "")


def _section(model: type[BaseModel], *, is_optional: bool) -> Section:
    reload: Reload = model.reload  # type: ignore[attr-defined]  # every model of ours derives from _Section
    keys = {key: _field(field, reload) for key, field in model.model_fields.items()}
    return Section(keys, is_optional, " ".join((model.__doc__ or "").split()))


def _field(field: FieldInfo, section_reload: Reload) -> Node:
    annotation, metadata, is_optional = _strip(field.annotation, list(field.metadata))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _section(annotation, is_optional=is_optional)
    example = field.examples[0] if field.examples else None
    if get_origin(annotation) is dict:
        key_type, item_type = get_args(annotation)
        _, key_metadata, _ = _strip(key_type, [])
        return Named(
            name_expectation=_marked(key_metadata, Expect).text,
            item=_field(FieldInfo.from_annotation(item_type), section_reload),
            example=example or {},
            is_required=field.is_required(),
            description=field.description or "",
        )
    reload = next((mark for mark in metadata if isinstance(mark, Reload)), section_reload)
    default = None if field.default is PydanticUndefined else field.default
    choices = _choices(annotation)
    return Leaf(
        type=_value_type(annotation),
        expectation=_expectation(annotation, metadata, choices),
        choices=choices,
        is_file_name=any(isinstance(mark, FileName) for mark in metadata),
        is_required=field.is_required(),
        default=default,
        example=example,
        description=field.description or "",
        reload=reload,
    )


def _strip(annotation: Any, metadata: list[Any]) -> tuple[Any, list[Any], bool]:
    """The bare type, the metadata of all its layers, and whether None was allowed beside it."""
    is_optional = False
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *more = get_args(annotation)
            metadata = [*more, *metadata]
        elif origin in (Union, types.UnionType):
            (annotation,) = (arg for arg in get_args(annotation) if arg is not type(None))
            is_optional = True
        else:
            return annotation, metadata, is_optional


def _value_type(annotation: Any) -> type:
    if get_origin(annotation) is tuple:
        return tuple
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0])
    for plain in (str, bool, int, float):
        if issubclass(annotation, plain):
            return plain
    raise TypeError(f"the schema has no word for {annotation}")


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal and _value_type(annotation) is str:
        return get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return tuple(member.value for member in annotation)
    return ()


def _expectation(annotation: Any, metadata: list[Any], choices: tuple[str, ...]) -> str:
    expect = next((mark.text for mark in metadata if isinstance(mark, Expect)), None)
    if expect is not None:
        return expect
    if choices:
        return "one of " + ", ".join(f'"{choice}"' for choice in choices)
    if get_origin(annotation) is Literal:
        return "the number " + " or ".join(str(value) for value in get_args(annotation))
    kind = _value_type(annotation)
    if kind is tuple:
        return 'an array of strings that are not empty, such as ["alice", "1000"]'
    if kind is bool:
        return "true or false"
    return {int: "a whole number", float: "a number", str: "a string"}[kind] + _range(metadata)


def _range(metadata: list[Any]) -> str:
    bounds: dict[type, Any] = {}
    for mark in metadata:
        for bound in mark.metadata if isinstance(mark, FieldInfo) else [mark]:
            if isinstance(bound, Ge | Gt | Le | Lt):
                bounds[type(bound)] = getattr(bound, type(bound).__name__.lower())
    words = [
        f" {word} {bounds[kind]}"
        for kind, word in ((Ge, "from"), (Gt, "above"), (Le, "to"), (Lt, "to below"))
        if kind in bounds
    ]
    return "".join(words)


def _marked(metadata: list[Any], kind: type[Expect]) -> Expect:
    return next(mark for mark in metadata if isinstance(mark, kind))
