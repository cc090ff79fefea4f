"""Tables of the README that are made from the code, so that the two cannot differ."""

from __future__ import annotations

from pathlib import Path

from trtd.errors import TRAITS
from trtd.wire.messages import ITEM_BYTES

README = Path(__file__).parents[2] / "README.md"


def errors_table() -> str:
    """Every error code with blame, retry and hint."""
    rows = [
        f"| `{code}` | {traits.blame} | {'yes' if traits.retryable else 'no'} | {traits.hint} |"
        for code, traits in TRAITS.items()
    ]
    return "\n".join(["| code | who acts | retry helps | what to do |", "|---|---|---|---|", *rows])


def dtypes_table() -> str:
    """Every dtype with the bytes of one element."""
    rows = [f"| `{dtype}` | {size} |" for dtype, size in ITEM_BYTES.items()]
    return "\n".join(["| dtype | bytes per element |", "|---|---|", *rows])


TABLES = {"errors": errors_table, "dtypes": dtypes_table}


def marked(text: str, name: str) -> str | None:
    """What stands between `<!-- name -->` and `<!-- /name -->`, None where the marks are missing."""
    _, found, rest = text.partition(f"<!-- {name} -->\n")
    body, closed, _ = rest.partition(f"\n<!-- /{name} -->")
    return body.strip("\n") if found and closed else None
