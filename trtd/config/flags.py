"""The layer of command line flags: single keys, and the models of `trtd serve --model [NAME=]FILE`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trtd.config.environment import value_layer
from trtd.config.layers import Layer
from trtd.config.origins import Origin
from trtd.config.schema import KeyPath
from trtd.errors import Usage

DEFAULT_TENANT = "default"
"""The tenant of models that are named on the command line."""
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class Override:
    """A flag that sets a key.

    Attributes:
        flag: as it is written, such as `--log-level`.
        path: the key.
        value: as TOML would give it; a relative path starts at the working directory.
    """

    flag: str
    path: KeyPath
    value: Any


def override_layers(overrides: Sequence[Override], working_dir: str) -> list[Layer]:
    """One layer for each flag, in the order of the command line."""
    return [
        value_layer(override.path, override.value, Origin(f"flag {override.flag}"), working_dir)
        for override in overrides
    ]


def model_overrides(models: Sequence[str]) -> tuple[Override, ...]:
    """The flags of `--model [NAME=]FILE`, repeatable: models of one tenant called `default`.

    Without a name the model is called as its file, without the suffix.

    Raises:
        trtd.errors.Usage: one is not of that form, a file's name gives none, or a name comes twice.
    """
    overrides: list[Override] = []
    for text in models:
        name, equals, file = text.partition("=")
        if not equals:
            name, file = _name_from(text), text
        if not (name and file):
            raise Usage(f"--model takes NAME=FILE, or a file with a suffix such as resnet.onnx, not {text!r}")
        path = ("tenants", DEFAULT_TENANT, "models", name, "path")
        if any(override.path == path for override in overrides):
            raise Usage(f"--model {name!r} is given twice")
        overrides.append(Override("--model", path, file))
    return tuple(overrides)


def _name_from(file: str) -> str:
    """The name of a file as that of a model, what a name may not have replaced; empty where nothing is left of it."""
    stem, _, suffix = file.rpartition("/")[2].rpartition(".")
    name = _NOT_IN_A_NAME.sub("-", stem).strip("-._")
    return name[:_LONGEST_NAME] if suffix else ""
