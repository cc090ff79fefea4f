"""Quantities as people write them: a number and its unit, `256MiB`, `1.5 GB`, `100ms`, `2m`."""

from __future__ import annotations

import re
from decimal import Decimal

BYTES: dict[str, int] = {
    "B": 1,
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTP", start=1)},
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGTP", start=1)},
}
"""Units of a size, with what they stand for: KiB is 1024 bytes, kB is 1000."""
SECONDS: dict[str, Decimal] = {
    "us": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86_400),
}
"""Units of a length of time."""

_QUANTITY = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?([A-Za-z]{1,3})")


def size_bytes(text: str) -> int | None:
    """The size in bytes; None where the text is none, or not one of whole bytes."""
    found = _parts(text)
    if found is None or found[1] not in BYTES:
        return None
    value = found[0] * BYTES[found[1]]
    return int(value) if value == value.to_integral_value() else None


def length_s(text: str) -> float | None:
    """The length of time in seconds; None where the text is none."""
    found = _parts(text)
    return None if found is None or found[1] not in SECONDS else float(found[0] * SECONDS[found[1]])


def _parts(text: str) -> tuple[Decimal, str] | None:
    found = _QUANTITY.fullmatch(text)
    return None if found is None else (Decimal(found[1]), found[2])
