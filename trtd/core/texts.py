"""Texts that are too long: the middle goes. Libraries say first where they are, and last what is wrong."""

from __future__ import annotations

GAP = " ... "


def shorten(text: str, most: int) -> str:
    """The text in so many characters at most; of what stays, a third is its beginning."""
    if len(text) <= most:
        return text
    room = most - len(GAP)
    head = room // 3
    return f"{text[:head]}{GAP}{text[len(text) - (room - head) :]}"


def shorten_bytes(data: bytes, most: int) -> str:
    """The same of UTF-8, counted in bytes; no character is cut in two."""
    if len(data) <= most:
        return data.decode(errors="ignore")
    room = most - len(GAP)
    head = room // 3
    begin, end = data[:head], data[len(data) - (room - head) :]
    return f"{begin.decode(errors='ignore')}{GAP}{end.decode(errors='ignore')}"
