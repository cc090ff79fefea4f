"""Man pages in the language of man(7): escaping, and the few macros that ours need."""

from __future__ import annotations

import re
from collections.abc import Iterable

SOURCE = "trtd"
MANUAL = "trtd manual"


def escape(text: str) -> str:
    """The text as it is: no character of it means anything to roff, and an option keeps its hyphen for copying."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def bold(text: str) -> str:
    """What is typed as it stands."""
    return f"\\fB{escape(text)}\\fR"


def italic(text: str) -> str:
    """What stands for something else."""
    return f"\\fI{escape(text)}\\fR"


def page(name: str, section: int, summary: str, body: Iterable[str]) -> str:
    """A whole page. It carries no date: it changes with the program and not with the day it was made on."""
    head = [
        '.\\" Made by scripts/manual from the code. Changes here are lost.',
        f'.TH {escape(name)} {section} "" "{SOURCE}" "{MANUAL}"',
        ".SH NAME",
        f"{escape(name)} \\- {escape(summary)}",
    ]
    text = "\n".join([*head, *body]) + "\n"
    # A section begins a paragraph itself; another beginning is only noise to a checker.
    return re.sub(r"^(\.S[HS] .*)\n\.PP$", r"\1", text, flags=re.MULTILINE)


def heading(text: str) -> str:
    """A section."""
    return f".SH {escape(text.upper())}"


def subheading(text: str) -> str:
    """A section within a section."""
    return f".SS {quoted(text)}"


def quoted(text: str) -> str:
    """The text as one argument of a macro."""
    return f'"{escape(text)}"'


def paragraph(text: str) -> str:
    """A paragraph of plain text; words in backquotes are bold."""
    return f".PP\n{_prose(text)}"


def tagged(tag: str, text: str) -> str:
    """An entry of a list; the tag is roff already."""
    return f".TP\n{tag}\n{_prose(text)}"


def example(text: str) -> str:
    """Lines that are kept as they are."""
    lines = "\n".join(escape(line) for line in text.strip("\n").splitlines())
    return f".PP\n.RS 4\n.nf\n{lines}\n.fi\n.RE"


def _prose(text: str) -> str:
    """Text with `words` in bold."""
    parts = text.split("`")
    return "".join(bold(part) if index % 2 else escape(part) for index, part in enumerate(parts))
