"""Places for connections: a bounded number, of which no owner gets more than a share. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable


class Places:
    """So many places, and who holds how many of them.

    Args:
        most: places there are.
        most_each: places that one owner may hold.
    """

    def __init__(self, most: int, most_each: int) -> None:
        self.most = most
        self.most_each = most_each
        self._held: Counter[Hashable] = Counter()
        self._taken = 0

    def __len__(self) -> int:
        """How many places are taken."""
        return self._taken

    def held_by(self, owner: Hashable) -> int:
        """How many places an owner holds."""
        return self._held[owner]

    def take(self, owner: Hashable) -> str | None:
        """Give a place to an owner, or say in a few words why there is none."""
        held = self._held[owner]
        if held >= self.most_each:
            return f"too many connections: {held} of the same owner are open, the most is {self.most_each}"
        if self._taken >= self.most:
            return f"too many connections: {self._taken} are open, the most is {self.most}"
        self._held[owner] += 1
        self._taken += 1
        return None

    def leave(self, owner: Hashable) -> None:
        """An owner gives a place back."""
        self._taken -= 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
