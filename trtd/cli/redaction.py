"""Takes secrets out of text that leaves the host. Pure: what is known to be secret is an argument.

Keys are recognised by their form (Z85, 40 characters), by the name that a value stands beside, and by being told. What
looks like a key and is none is taken out too: too much rather than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

REMOVED = "<removed>"
LEAST_SECRET_LENGTH = 8
"""A shorter known secret is not looked for: it would be found in everything."""

_Z85 = r"0-9A-Za-z.:+=^!/*?&<>()\[\]{}@%$#-"
_KEY = re.compile(rf"(?:(?<![{_Z85}])|(?<=[=:(\[{{<]))[{_Z85}]{{40}}(?=[.:!?)\]}}>]*(?![{_Z85}]))")
_PLAIN = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?/[\w./:-]*|[0-9a-f]+|[a-z0-9_.-]+")
"""A path, an address, a digest and a dotted name have the length of a key by chance; a key has other characters."""

_NAMED = re.compile(
    r"""(?ix) ( \b [\w.-]* (?: secret | password | passwd | token | private_?key ) [\w.-]* ["']? \s* [:=] \s* )
        ( "(?:[^"\\]|\\.)*" | '[^']*' | [^\s,;}\]]+ )"""
)


def redact(text: str, known: Iterable[str] = ()) -> str:
    """The text without anything secret."""
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= LEAST_SECRET_LENGTH:
            text = text.replace(secret, REMOVED)
    text = _NAMED.sub(_without_value, text)
    return _KEY.sub(_without_key, text)


def _without_value(found: re.Match[str]) -> str:
    name, value = found.groups()
    # A path to a secret is no secret, and whoever helps needs it.
    names_a_file = re.search(r"_(?:file|path)\b", name) is not None
    return found.group() if names_a_file or value in {'""', "null"} else f'{name}"{REMOVED}"'


def _without_key(found: re.Match[str]) -> str:
    return found.group() if _PLAIN.fullmatch(found.group()) else REMOVED
