"""The nearest right key or value for one that is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from trtd.config.files import TENANT_FILES
from trtd.config.origins import key_text
from trtd.config.schema import KeyPath, Named, Section, find, leaves, schema

_MOST_LISTED = 8


def nearest(word: str, candidates: Sequence[str]) -> str | None:
    """The candidate that was probably meant, if any is near."""
    # Long words cost quadratic time and are near to nothing.
    found = difflib.get_close_matches(word[:64].lower().replace("-", "_"), candidates, n=1, cutoff=0.6)
    return found[0] if found else None


def unknown_key(path: KeyPath) -> str:
    """What to say of a key that does not exist: the nearest one beside it, the same one elsewhere, or all there are."""
    *table, key = path
    around = find(tuple(table))
    siblings = list(around.keys) if isinstance(around, Section) else []
    if key == "tenants" and len(path) == 3:
        return f"unknown key; a file in {TENANT_FILES}/ holds one tenant's keys without [tenants.{path[1]}]"
    elsewhere = _elsewhere(path)
    beside = nearest(key, siblings)
    if beside is not None and (elsewhere is None or elsewhere[0] != path[0]):
        return f"unknown key, did you mean {beside}?"
    if elsewhere is not None:
        return f"unknown key, did you mean {key_text(elsewhere)}?"
    if 0 < len(siblings) <= _MOST_LISTED:
        return f"unknown key; known here: {', '.join(siblings)}"
    return "unknown key"


def _elsewhere(path: KeyPath) -> KeyPath | None:
    """A key of the same name in another table, the one with most of its path in common; names of tenants kept."""
    same_name = [known for known, _ in leaves(schema()) if known[-1] == path[-1]]
    if not same_name:
        return None
    # A name that the operator chose agrees with NAME.
    fitting = [_fill_in(known, path) for known in same_name]
    return max(fitting, key=lambda known: _common(known, path))


def _fill_in(known: KeyPath, path: KeyPath) -> KeyPath:
    filled: list[str] = []
    for index, part in enumerate(known):
        can_fill = part == "NAME" and known[:index] == _as_schema(path[:index]) and index < len(path) - 1
        filled.append(path[index] if can_fill else part)
    return tuple(filled)


def _as_schema(path: KeyPath) -> KeyPath:
    return tuple("NAME" if isinstance(find(path[:index]), Named) else part for index, part in enumerate(path))


def _common(one: KeyPath, other: KeyPath) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
