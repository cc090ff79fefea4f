"""The layer of environment variables: `TRTD_SECTION__KEY`, two underscores between the parts of a key.

A value is read as TOML; what is no TOML is a string, and so is anything meant for a key that takes a string. Variables
without two underscores are none of ours (an orchestrator may set TRTD_PORT or TRTD_SERVICE_HOST), unless they look like
a key that was meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtd.config.layers import Layer
from trtd.config.origins import Origin, Problem
from trtd.config.schema import KeyPath, Leaf, find, leaves, schema
from trtd.config.toml import MAX_DEPTH, NotToml, parse

PREFIX = "TRTD_"
SEPARATOR = "__"


def variable(path: KeyPath) -> str:
    """The variable that sets a key."""
    return PREFIX + SEPARATOR.join(path).upper()


def environment_layers(environ: Mapping[str, str], working_dir: str) -> tuple[list[Layer], list[Problem]]:
    """One layer for each variable, sorted by name, so that a key stands above a table that holds it."""
    layers = []
    problems = []
    meant = {variable(path).replace(SEPARATOR, "_"): path for path, _ in leaves(schema()) if len(path) > 1}
    for name in sorted(name for name in environ if name.startswith(PREFIX)):
        origin = Origin(f"environment {name}")
        path = tuple(part.lower() for part in name.removeprefix(PREFIX).split(SEPARATOR))
        if len(path) == 1:
            if name in meant:
                problems.append(Problem((), f"is no setting, did you mean {variable(meant[name])}?", origin))
        elif len(path) > MAX_DEPTH:
            problems.append(Problem((), f"has a key of more than {MAX_DEPTH} parts", origin))
        elif not all(path):
            problems.append(Problem((), "a part of the key is empty", origin))
        elif not (is_text(name) and is_text(environ[name])):
            problems.append(Problem((), "is not UTF-8 text", origin))
        else:
            layers.append(value_layer(path, parse_value(path, environ[name]), origin, working_dir))
    return layers, problems


def parse_value(path: KeyPath, text: str) -> Any:
    """The text as a TOML value, or the text itself."""
    try:
        table = parse(f"value = {text}")
    except NotToml:
        return text
    value = table["value"]
    node = find(path)
    if len(table) > 1 or (isinstance(node, Leaf) and node.type is str and not isinstance(value, str)):
        return text
    return value


def value_layer(path: KeyPath, value: Any, origin: Origin, base_dir: str) -> Layer:
    """A layer that sets one key."""
    for key in reversed(path):
        value = {key: value}
    return Layer(value, lambda _: origin, base_dir)


def is_text(value: str) -> bool:
    """Whether what the system gave was UTF-8; Python shows other bytes as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
