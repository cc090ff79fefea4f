"""The JSON Schema of the status record, made from its types in `trtd.wire.status`, so that the two cannot differ."""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Any

from trtd.wire.status import STATUS_VERSION, Status

FILE = Path(__file__).parents[2] / "etc" / f"status-v{STATUS_VERSION}.schema.json"
SCALARS: dict[Any, str] = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}


def status_schema() -> dict[str, Any]:
    """The schema. Readers have to ignore keys that they do not know: a later daemon of this version may say more."""
    definitions: dict[str, Any] = {}
    _add(Status, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"trtd status --json, version {STATUS_VERSION}",
        "$ref": f"#/$defs/{Status.__name__}",
        "$defs": dict(sorted(definitions.items())),
    }


def text() -> str:
    """The schema as its file has it."""
    return json.dumps(status_schema(), indent=2) + "\n"


def _add(kind: Any, definitions: dict[str, Any]) -> None:
    if kind.__name__ in definitions:
        return
    hints = typing.get_type_hints(kind)
    definition = definitions[kind.__name__] = {
        "description": " ".join((kind.__doc__ or "").partition("Attributes:")[0].split()),
        "type": "object",
        "required": sorted(hints),
    }
    definition["properties"] = {name: _of(hint, definitions) for name, hint in hints.items()}
    version = definition["properties"].get("v")
    if version is not None:
        version["const"] = STATUS_VERSION


def _of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if typing.is_typeddict(hint):
        _add(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if typing.get_origin(hint) is list:
        return {"type": "array", "items": _of(typing.get_args(hint)[0], definitions)}
    if typing.get_origin(hint) in {types.UnionType, typing.Union}:
        return {"anyOf": [_of(option, definitions) for option in typing.get_args(hint)]}
    return {"type": SCALARS[hint]}
