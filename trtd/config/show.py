"""The configuration that is in force, as TOML that can be loaded again."""

from __future__ import annotations

from typing import Any

from trtd.config.model import Config
from trtd.config.origins import DEFAULT, Origins, key_text, one_line, quoted
from trtd.config.schema import KeyPath
from trtd.config.values import effective


def show(config: Config, origins: Origins, *, with_origin: bool) -> str:
    """One line for each value, in tables, with where it comes from in a comment when asked.

    There is no secret in it: keys of the router stand in files that are only named.
    """
    lines: list[str] = []
    table: KeyPath = ()
    for path, value in effective(config):
        if path[:-1] != table:
            table = path[:-1]
            lines += ["", f"[{key_text(table)}]"]
        line = f"{key_text(path[-1:])} = {toml_value(value)}"
        lines.append(f"{line}  # {one_line(str(origins.get(path, DEFAULT)))}" if with_origin else line)
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A plain value as TOML."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key_text((key,))} = {toml_value(item)}" for key, item in value.items()) + " }"
    return repr(value)
