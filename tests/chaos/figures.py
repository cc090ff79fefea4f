"""Figures of a run: quantiles, and the report that is printed and written as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least this part of the values does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else 0.0


def spread_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Count, p50, p99 and maximum, in milliseconds."""
    return {
        "n": len(seconds),
        "p50_ms": round(quantile(seconds, 0.5) * 1e3, 2),
        "p99_ms": round(quantile(seconds, 0.99) * 1e3, 2),
        "max_ms": round(max(seconds, default=0.0) * 1e3, 2),
    }


@dataclass(slots=True)
class Report:
    """What a proof showed.

    Attributes:
        name: of the proof.
        figures: by name; a value is a number, a text or a flat table of them.
        broken: promises that did not hold, one line each.
    """

    name: str
    figures: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One word."""
        return "broken" if self.broken else "holds"

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{self.name}: {self.verdict}"]
        lines += [f"  {name.replace('_', ' ')}: {_text(value)}" for name, value in self.figures.items()]
        lines += [f"  BROKEN: {line}" for line in self.broken]
        return lines

    def record(self) -> dict[str, Any]:
        """For `--json`."""
        return {"name": self.name, "verdict": self.verdict, "figures": self.figures, "broken": self.broken}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
