"""On which line of a TOML file each key stands; tomllib does not say.

Works on text that tomllib has accepted, so it only has to find keys, not to judge. Keys inside arrays are left out: the
array is the value.
"""

from __future__ import annotations

import bisect
import re
import tomllib

from trtd.config.schema import KeyPath

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_KEY_PART = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')[ \t]*""")
_STRING = re.compile(
    r'''"""(?:[^"\\]|\\.|"(?!""))*"{3,5}|\'\'\'(?:[^']|'(?!''))*'{3,5}|"(?:[^"\\]|\\.)*"|'[^']*\'''', re.DOTALL
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Key path to line number, from 1, of where it is first named; tables included."""
    return _Scan(text.replace("\r\n", "\n")).run()


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[KeyPath, int] = {}

    def run(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip_blank():
            if self._text[self._at] == "[":
                brackets = 2 if self._text.startswith("[[", self._at) else 1
                self._at += brackets
                table = self._key(())
                self._at += brackets
            else:
                self._assignment(table)
        return self._lines

    def _assignment(self, table: KeyPath | None) -> None:
        path = self._key(table)
        self._at += 1  # the equals sign
        self._value(path if table is not None else None)

    def _key(self, table: KeyPath | None) -> KeyPath:
        """Read a dotted key, note where it and the tables around it are first named; None notes nothing."""
        line = bisect.bisect_left(self._newlines, self._at) + 1
        path = table or ()
        while True:
            part = _KEY_PART.match(self._text, self._at)
            assert part is not None, "tomllib accepted this text"  # noqa: S101
            self._at = part.end()
            path = (*path, _unquoted(part[1]))
            if table is not None:
                self._lines.setdefault(path, line)
            if not self._text.startswith(".", self._at):
                return path
            self._at += 1

    def _value(self, path: KeyPath | None) -> None:
        """Skip a value; keys of an inline table are noted below `path`."""
        self._skip_blank()
        opening = self._text[self._at]
        if opening in "[{":
            self._at += 1
            while True:
                self._skip_blank()
                char = self._text[self._at]
                if char in "]}":
                    self._at += 1
                    return
                if char == ",":
                    self._at += 1
                elif opening == "{":
                    self._assignment(path)
                else:
                    self._value(None)
        else:
            match = _STRING.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
            assert match is not None  # noqa: S101 - the second pattern matches everything
            self._at = match.end()

    def _skip_blank(self) -> bool:
        """Go to the next thing that is neither space nor comment; False at the end of the text."""
        blank = _BLANK.match(self._text, self._at)
        assert blank is not None  # noqa: S101 - the pattern matches the empty text
        self._at = blank.end()
        return self._at < len(self._text)


def _unquoted(part: str) -> str:
    if part[0] == '"':
        return next(iter(tomllib.loads(f"{part} = 0"))) if "\\" in part else part[1:-1]
    return part.strip("'")
