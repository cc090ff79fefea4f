"""One layer of the configuration, and how layers are laid over each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trtd.config.origins import Origin, Origins
from trtd.config.schema import KeyPath, Leaf, Named, Node, Section, schema, unit
from trtd.core.quantities import length_s, size_bytes


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one source.

    Attributes:
        table: nested tables as TOML gives them.
        origin_of: where a key of this layer stands.
        base_dir: absolute directory at which relative paths start.
    """

    table: dict[str, Any]
    origin_of: Callable[[KeyPath], Origin]
    base_dir: str


def merge(layers: list[Layer]) -> tuple[dict[str, Any], Origins]:
    """Lay the layers over each other, later ones above: tables key by key, other values whole.

    Relative paths are resolved on the way, because only the layer knows where they start, and quantities with a unit
    become numbers. The origins cover tables too.
    """
    merged: dict[str, Any] = {}
    origins: Origins = {}
    for layer in layers:
        _merge_table(merged, origins, layer, layer.table, (), schema())
    return merged, origins


def _merge_table(
    into: dict[str, Any], origins: Origins, layer: Layer, table: dict[str, Any], at: KeyPath, section: Node | None
) -> None:
    for key, value in table.items():
        path = (*at, key)
        node = _child(section, key)
        below = into.get(key)
        if isinstance(below, dict) and not isinstance(value, dict):
            _forget(origins, path, below)
        origins[path] = layer.origin_of(path)
        if isinstance(value, dict):
            into[key] = below if isinstance(below, dict) else {}
            _merge_table(into[key], origins, layer, value, path, node)
        elif isinstance(node, Leaf) and node.is_file_name and isinstance(value, str) and value:
            into[key] = _resolved(layer, value)
        elif isinstance(node, Leaf) and node.is_file_name and isinstance(value, list | tuple):
            into[key] = [_resolved(layer, one) if isinstance(one, str) and one else one for one in value]
        elif isinstance(node, Leaf) and node.type in (int, float) and isinstance(value, str):
            into[key] = _number(path, value)
        else:
            into[key] = value


def _resolved(layer: Layer, path: str) -> str:
    return os.path.join(layer.base_dir, path)  # noqa: PTH118 - pathlib refuses NUL later, and less clearly


def _number(path: KeyPath, text: str) -> Any:
    """A quantity with its unit as the number that the key holds; what is none is left for validation to refuse."""
    number = {"bytes": size_bytes, "seconds": length_s}.get(unit(path), lambda _: None)(text)
    return text if number is None else number


def _child(node: Node | None, key: str) -> Node | None:
    if isinstance(node, Section):
        return node.keys.get(key)
    return node.item if isinstance(node, Named) else None


def _forget(origins: Origins, path: KeyPath, table: dict[str, Any]) -> None:
    """What stood in a table that is one no more came from nowhere."""
    for key, value in table.items():
        below = (*path, key)
        del origins[below]
        if isinstance(value, dict):
            _forget(origins, below, value)
