"""What a tenant's clients have begun to send and not ended, and what they have not read: counted in bytes, and bounded.

One tenant's clients fill the router's memory for all tenants otherwise: with messages that never become whole, or with
answers that nobody reads. Where a bound is reached, those who go on are served before those who stand still.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trtd.router.guests import Guest

STALLED_LOOKS = 3
"""How often, about a second apart, nothing may have come of a message for which others wait."""
MOST_LOOKS = 60
"""How often others may wait for the same message at all."""
SMALL_BYTES = 64 * 1024
"""Of a message of which no more is kept, more is read in any case: there are many of them, and they are soon whole."""


class Unfinished:
    """Messages of one endpoint that have begun and are not whole.

    Above the bound only the one that began first is read on, so that there is always one that becomes whole. It has to
    go on, or its connection ends.

    Args:
        most_bytes: the bound.

    Attributes:
        total_bytes: of all of them.
    """

    def __init__(self, most_bytes: int) -> None:
        self.total_bytes = 0
        self._most_bytes = most_bytes
        self._sizes: dict[Guest, int] = {}
        self._first: Guest | None = None
        self._came = 0, 0
        self._looks = self._stalled_looks = 0

    def note(self, guest: Guest) -> None:
        """Look at what a guest has begun; nothing is forgotten, too."""
        size = guest.begun_bytes
        before = self._sizes.get(guest, 0)
        if size:
            self._sizes[guest] = size
        elif before:
            del self._sizes[guest]
        self.total_bytes += size - before

    def forget(self, guest: Guest) -> None:
        """The message is whole, or its connection is over."""
        self.total_bytes -= self._sizes.pop(guest, 0)

    def may_go_on(self, guest: Guest) -> bool:
        """Whether more of what a guest sends may be read now."""
        if self.total_bytes < self._most_bytes or self._sizes.get(guest, 0) <= SMALL_BYTES:
            return True
        return guest is next(iter(self._sizes))

    def __bool__(self) -> bool:
        return bool(self._sizes)

    def find_stalled(self) -> Guest | None:
        """Who keeps others waiting and sends nothing, or for too long. To be called about once a second."""
        first = next(iter(self._sizes)) if self.total_bytes >= self._most_bytes else None
        if first is None or first is not self._first:
            self._first, self._came = first, (0, 0)
            self._looks = self._stalled_looks = 0
            return None
        came = first.taken_bytes, self._sizes[first]
        self._looks += 1
        self._stalled_looks = self._stalled_looks + 1 if came == self._came else 0
        self._came = came
        return first if self._stalled_looks >= STALLED_LOOKS or self._looks >= MOST_LOOKS else None


class Unread:
    """Answers of one tenant that its clients have not read, as their connections hold them.

    Attributes:
        bytes: of all of them.
        given_up: answers that were kept for connections when these were closed.
    """

    __slots__ = ("_steps", "bytes", "given_up")

    def __init__(self) -> None:
        self.bytes = 0
        self.given_up = 0
        self._steps = 0

    def step(self) -> int:
        """A number larger than all before, by which can be told who read last."""
        self._steps += 1
        return self._steps


def choose_loser(guests: Iterable[Guest], unread_bytes: int, most_bytes: int) -> Guest | None:
    """Who loses its answers where more is unread than may be: of the user with most of it, who read last longest ago.

    What waits on the connection with most of it does not count: an answer that may be given always has room.

    Args:
        guests: all of a tenant.
        unread_bytes: of all of them.
        most_bytes: their bound.

    Returns:
        None where nobody has to.
    """
    waiting = [guest for guest in guests if guest.has_output]
    if not waiting or unread_bytes - max(guest.unread_bytes for guest in waiting) <= most_bytes:
        return None
    of_users: dict[int, int] = {}
    for guest in waiting:
        of_users[guest.uid] = of_users.get(guest.uid, 0) + guest.unread_bytes
    most = max(of_users, key=of_users.__getitem__)
    return min((guest for guest in waiting if guest.uid == most), key=lambda guest: guest.read_step)
