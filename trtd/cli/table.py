"""Tables that fit the terminal: the least important columns go first, long texts are cut, no line is ever broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trtd.cli.values import NOTHING, cut

GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        title: its head.
        rank: 0 always stays; of the others the highest goes first.
        is_text: whether it stands to the left.
        least: width down to which its cells may be cut; 0 for never.
        most: width beyond which they are cut even where there is room; 0 for never.
        is_rare: whether it goes when no row has anything to say in it.
    """

    title: str
    rank: int
    is_text: bool = False
    least: int = 0
    most: int = 0
    is_rare: bool = False


@dataclass(frozen=True, slots=True)
class Fitted:
    """A table that fits.

    Attributes:
        lines: the head first.
        hidden: titles of the columns that found no place.
        cut: titles of the columns in which something is cut.
    """

    lines: list[str]
    hidden: list[str]
    cut: list[str]


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Fitted:
    """The table in lines of at most `width` characters; None for no limit."""
    natural = {
        index: max(len(column.title), *(len(row[index]) for row in rows), 0)
        for index, column in enumerate(columns)
        if not column.is_rare or any(row[index] != NOTHING for row in rows)
    }
    widths = {index: min(cells, columns[index].most or cells) for index, cells in natural.items()}
    while width is not None and _total(widths) > width:
        if not _shrink(columns, widths, _total(widths) - width):
            last = max(widths, key=lambda index: (columns[index].rank, index))
            if columns[last].rank == 0:
                break
            del widths[last]
    lines = [_line(columns, widths, [column.title for column in columns])]
    lines += [_line(columns, widths, row) for row in rows]
    return Fitted(
        lines=[cut(line, width) if width is not None else line for line in lines],
        hidden=[columns[index].title for index in natural if index not in widths],
        cut=[columns[index].title for index in widths if widths[index] < natural[index]],
    )


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _shrink(columns: Sequence[Column], widths: dict[int, int], excess: int) -> bool:
    """Take the excess from the columns that may be cut, the least important one first; False when it is too much."""
    spare = {index: widths[index] - max(columns[index].least, len(columns[index].title)) for index in widths}
    spare = {index: room for index, room in spare.items() if columns[index].least and room > 0}
    if sum(spare.values()) < excess:
        return False
    for index in sorted(spare, key=lambda index: -columns[index].rank):
        taken = min(excess, spare[index])
        widths[index] -= taken
        excess -= taken
    return True


def _line(columns: Sequence[Column], widths: dict[int, int], cells: Sequence[str]) -> str:
    shown = []
    for index, width in widths.items():
        text = cut(cells[index], width)
        shown.append(text.ljust(width) if columns[index].is_text else text.rjust(width))
    return GAP.join(shown).rstrip()
