"""TOML within bounds: what `tomllib` takes, as long as no key and no nesting is so deep that reading it has no end."""

from __future__ import annotations

import re
import tomllib
from typing import Any

MAX_DEPTH = 32
"""Parts of a key, with those of the tables around it. The longest key of ours has six."""

_POSITION = re.compile(r" \((?:at line (?P<line>\d+), column \d+|at end of document)\)$")
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+"""
# tomllib needs quadratic time for the parts of one key, so that these are counted before. Where a key may begin:
_LONG_KEY = re.compile(rf"(?:^|[\[{{,])[ \t]*+{_PART}(?:\.[ \t]*+{_PART}){{{MAX_DEPTH}}}", re.MULTILINE)


class NotToml(ValueError):
    """A text that cannot be read.

    Attributes:
        text: why, to follow a file's name.
        line: from 1, where it is known.
    """

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.line = line


def parse(text: str) -> dict[str, Any]:
    """The table that a text holds.

    Raises:
        NotToml: it is no TOML, or deeper than any configuration.
    """
    too_deep = f"has a key of more than {MAX_DEPTH} parts"
    long_key = _LONG_KEY.search(text)
    if long_key is not None:
        raise NotToml(too_deep, text.count("\n", 0, long_key.end()) + 1)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        position = _POSITION.search(str(error))
        line = (int(position["line"]) if position["line"] else text.count("\n") + 1) if position else None
        raise NotToml(f"is not valid TOML: {_POSITION.sub('', str(error))}", line) from None
    except RecursionError:
        raise NotToml("is not valid TOML: nested too deep") from None
    except ValueError:
        raise NotToml("is not valid TOML: a number or a date is out of range") from None
    if _is_too_deep(table):
        raise NotToml(too_deep)
    return table


def _is_too_deep(table: dict[str, Any]) -> bool:
    level = [table]
    for _ in range(MAX_DEPTH + 1):
        level = [value for one in level for value in one.values() if isinstance(value, dict)]
        if not level:
            return False
    return True
