"""The shared memory that one tenant's clients have offered: who may name it, how much of it there is, what is refused.

Pure bookkeeping. An arena can be named from `add` until `withdraw`; its bytes count until `end`, which comes when the
last request that names it is done: the lifetime of the `Arena` object decides that, and `trtd.router.arenas` watches
it. Whether a descriptor is what it ought to be is looked at there too; keys come from there.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from trtd.core.admission import Refusal
from trtd.errors import ArenaUnknown, ErrorCode, Malformed

MAX_ARENAS = 1024
"""Most arenas of one tenant: each is a descriptor of the router and a mapping of every worker."""
MAX_ARENAS_PER_CONNECTION = 64
"""Most arenas that one client may have named at a time."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Arena:
    """One arena. Whoever still needs its memory holds this object; compared by identity.

    Attributes:
        key: by which requests name it; told on the connection that offered it alone, and nobody can guess it.
        size_bytes: of the whole.
        owner: the process that offered it, as far as the kernel knows it; only its requests may name it.
        fd: the router's descriptor of it, opaque here.
    """

    key: int
    size_bytes: int
    owner: Hashable
    fd: int


class ArenaBook:
    """The arenas of one tenant.

    Attributes:
        max_bytes: most bytes of all of them together; 0 takes none.
        max_count: most of them.
        held_bytes: of those that have not ended, withdrawn ones included.
        count: how many these are.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.max_count = MAX_ARENAS
        self.held_bytes = 0
        self.count = 0
        self._named: dict[int, Arena] = {}

    def judge(self, size_bytes: int, count_of_connection: int) -> Refusal | None:
        """Why an arena of this size cannot enter, None when it can.

        Args:
            size_bytes: its size.
            count_of_connection: arenas that the same connection has offered and not withdrawn.
        """
        if size_bytes > self.max_bytes:
            if not self.max_bytes:
                return Refusal(ErrorCode.TOO_LARGE, "the tenant takes no shared memory")
            message = f"the arena has {size_bytes} bytes, and the tenant takes {self.max_bytes} of all its clients"
            return Refusal(ErrorCode.TOO_LARGE, message)
        if count_of_connection >= MAX_ARENAS_PER_CONNECTION:
            message = f"the connection has {count_of_connection} arenas, the most is {MAX_ARENAS_PER_CONNECTION}"
        elif self.count >= self.max_count:
            message = f"the tenant has {self.count} arenas, the most is {self.max_count}"
        elif self.held_bytes + size_bytes > self.max_bytes:
            message = f"the tenant has {self.held_bytes} bytes in arenas; {size_bytes} more exceed {self.max_bytes}"
        else:
            return None
        return Refusal(ErrorCode.OVERLOADED, message)

    def __contains__(self, key: int) -> bool:
        """Whether requests may name an arena by this key."""
        return key in self._named

    def add(self, arena: Arena) -> None:
        """The arena enters; from now on its owner's requests may name it. Its key is not in use."""
        self._named[arena.key] = arena
        self.held_bytes += arena.size_bytes
        self.count += 1

    def withdraw(self, key: int) -> None:
        """No further request may name the arena. It stays in the accounts until it ends."""
        self._named.pop(key, None)

    def end(self, size_bytes: int) -> None:
        """A withdrawn arena of this size is needed by nobody any more."""
        self.held_bytes -= size_bytes
        self.count -= 1

    def find(self, owner: Hashable, key: int, offset: int, size_bytes: int) -> Arena:
        """The arena in which the place lies that a request of this owner names.

        Raises:
            ArenaUnknown: the owner has no such arena. The same words for a key that another one has.
            Malformed: the place does not lie in it.
        """
        arena = self._named.get(key)
        if arena is None or arena.owner != owner:
            raise ArenaUnknown("this client has offered no arena by that key, or has withdrawn it")
        if offset + size_bytes > arena.size_bytes:
            raise Malformed(f"the place from {offset} to {offset + size_bytes} exceeds the arena's {arena.size_bytes}")
        return arena
