"""Where a value comes from, and how a problem with it is told: one line with origin, key and what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from trtd.config.schema import KeyPath
from trtd.errors import InvalidConfig

MAX_TOLD = 100
"""Problems that are told; who has more has made one mistake many times."""
MAX_KEY_CHARS = 200
"""Of a key in a problem's line."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from.

    Attributes:
        source: path of a file, `environment NAME`, `flag --NAME` or `default`.
        line: in the file, where it is known.
    """

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


DEFAULT = Origin("default")
Origins = dict[KeyPath, Origin]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in the configuration.

    Attributes:
        path: the key; empty for a file as a whole.
        text: what is wrong and what is wanted.
        origin: where, None to look it up by the key.
    """

    path: KeyPath
    text: str
    origin: Origin | None = None

    def line(self, origins: Origins) -> str:
        """The problem in one line: origin, key, text."""
        origin = self.origin or nearest_origin(self.path, origins)
        parts = [str(origin)] if origin else []
        if self.path:
            key = key_text(self.path)
            parts.append(key if len(key) <= MAX_KEY_CHARS else f"{key[:MAX_KEY_CHARS]}...")
        return one_line(": ".join([*parts, self.text]))


def nearest_origin(path: KeyPath, origins: Origins) -> Origin | None:
    """The origin of a key, or of the table around it where the key itself is absent."""
    for length in range(len(path), 0, -1):
        origin = origins.get(path[:length])
        if origin is not None:
            return origin
    return None


def invalid_config(problems: Iterable[Problem], origins: Origins) -> InvalidConfig:
    """The error that reports these problems, at least one, each in one line and none twice, and the first hundred."""
    lines = list(dict.fromkeys(problem.line(origins) for problem in problems))
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    if len(lines) > MAX_TOLD:
        lines[MAX_TOLD:] = [f"and {len(lines) - MAX_TOLD} more problems"]
    return InvalidConfig(lines[0] + more, problems=tuple(lines))


def key_text(path: KeyPath) -> str:
    """A key as one writes it in TOML: dotted, unusual parts quoted."""
    return ".".join(part if _BARE_KEY.fullmatch(part) else quoted(part) for part in path)


def quoted(text: str) -> str:
    """The text as a TOML string."""
    # JSON escapes all that TOML wants escaped, but for DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def one_line(text: str) -> str:
    """The text without anything that could break a line or a terminal; what is unprintable is escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )
