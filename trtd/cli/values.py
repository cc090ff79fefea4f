"""Quantities as people read them: short, with the unit that suits them."""

from __future__ import annotations

NOTHING = "-"
UNKNOWN = "?"


def duration(seconds: float | None) -> str:
    """A length of time, in the unit that suits it."""
    if seconds is None:
        return NOTHING
    if seconds < 0.000_999_5:
        return f"{seconds * 1e6:.0f}us"
    if seconds < 0.999_5:
        return f"{seconds * 1e3:.3g}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86_400
    if minutes < 60:
        return f"{minutes:.0f}m"
    return f"{hours:.0f}h" if hours < 48 else f"{days:.0f}d"


def size(count_bytes: int) -> str:
    """A size in bytes, in the binary unit that suits it."""
    value = float(count_bytes)
    for unit in ("B", "K", "M", "G"):
        if value < 1024:
            return f"{value:.0f}{unit}"
        value /= 1024
    return f"{value:.1f}T"


def cut(text: str, width: int) -> str:
    """The text in so many characters at most, with an ellipsis where something is missing."""
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."[:width]
