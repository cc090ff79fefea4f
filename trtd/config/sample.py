"""The samples in `etc/`, written from the model: every key with its meaning, unit, range, default and reload.

A line that starts with `#` and no space is a setting that is switched off; `# ` starts prose. To write the full sample
anew after a change of the model: `python -m trtd.config.sample > etc/trtd.toml`. A test holds the two together.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from trtd.config.origins import key_text
from trtd.config.schema import KeyPath, Leaf, Named, Section, schema, unit
from trtd.config.show import toml_value

WIDTH = 100
TENANT = "example"
MODEL = "resnet"

_HEAD = """\
# Every key of trtd's configuration with its default.
#
# `# ` starts an explanation, `#` alone a setting that is switched off because it would change something.
# Layers, later ones win: /usr/lib/trtd/trtd.toml, /etc/trtd/trtd.toml, conf.d/*.toml and tenants.d/NAME.toml beside it,
# environment variables (TRTD_LOG__LEVEL=debug), flags. `trtd config show --origin` tells what is in force and why.
# Bytes and seconds may have a unit: "256MiB" (1024s; "256MB": 1000s), "100ms", "5s", "2m".
# Most hosts need only what stands in trtd-minimal.toml.
"""


def full_sample() -> str:
    """The text of `etc/trtd.toml`."""
    lines = [_HEAD]
    root = schema()
    for key, node in root.keys.items():
        if isinstance(node, Leaf):
            lines += _leaf((key,), node, is_off=False, tell_reload=False)
        else:
            lines += _table((key,), node, is_off=False)
    return "\n".join(lines) + "\n"


def _table(path: KeyPath, node: Section | Named, *, is_off: bool) -> Iterator[str]:
    if isinstance(node, Named):
        yield from _named(path, node, is_off=is_off)
        return
    is_off = is_off or node.is_optional
    yield ""
    # What is true of every key of a table is said once, above it.
    reloads = {child.reload for child in node.keys.values() if isinstance(child, Leaf)}
    shared = reloads.pop() if len(reloads) == 1 else None
    yield from _prose(node.description, f"a changed value: {shared.value}" if shared else "")
    yield _setting(f"[{key_text(path)}]", is_off=is_off)
    # The keys of a table have to come before the tables inside it; the model has them in this order.
    for key, child in node.keys.items():
        if isinstance(child, Leaf):
            yield from _leaf((*path, key), child, is_off=is_off, tell_reload=shared is None)
        else:
            yield from _table((*path, key), child, is_off=is_off)


def _named(path: KeyPath, node: Named, *, is_off: bool) -> Iterator[str]:
    """A table of names that are the operator's: one example, switched off."""
    if isinstance(node.item, Leaf):
        yield ""
        yield from _prose(node.description, f"each is {node.item.expectation}")
        yield _setting(f"[{key_text(path)}]", is_off=is_off)
        for name, value in node.example.items():
            yield _setting(f"{key_text((name,))} = {toml_value(value)}", is_off=True)
        return
    if isinstance(node.item, Named):
        for name, values in node.example.items():
            yield from _named(
                (*path, name), replace(node.item, example=values, description=node.description), is_off=True
            )
        return
    if isinstance(node.item, Section):
        name = TENANT if len(path) == 1 else MODEL
        yield from _table((*path, name), node.item, is_off=True)


def _leaf(path: KeyPath, leaf: Leaf, *, is_off: bool, tell_reload: bool) -> Iterator[str]:
    value_text = f"{unit(path)}: {leaf.expectation}" if unit(path) else leaf.expectation
    reload_text = f"a changed value: {leaf.reload.value}" if tell_reload else ""
    yield ""
    yield from _prose(leaf.description, value_text, reload_text)
    has_default = leaf.default is not None
    value: Any = leaf.default if has_default else leaf.example
    yield _setting(f"{path[-1]} = {toml_value(value)}", is_off=is_off or not has_default)


def _setting(line: str, *, is_off: bool) -> str:
    return f"#{line}" if is_off else line


def _prose(*sentences: str) -> list[str]:
    text = " ".join(_sentence(sentence) for sentence in sentences if sentence)
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


if __name__ == "__main__":
    sys.stdout.write(full_sample())
