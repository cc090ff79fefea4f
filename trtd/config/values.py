"""The values of a `Config` by key path, as plain values in the order of the model.

In each model the keys with values stand before those with tables, so that this order can be written down as TOML.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from pydantic import BaseModel

from trtd.config.model import Config
from trtd.config.schema import KeyPath


def effective(config: Config) -> Iterator[tuple[KeyPath, Any]]:
    """Every value that is in force; keys without a value (None) and empty tables of names are left out."""
    yield from _walk(config, ())


def _walk(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, BaseModel):
        value = {key: getattr(value, key) for key in type(value).model_fields}
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, (*path, key))
    elif value is not None:
        yield path, value.value if isinstance(value, Enum) else value
