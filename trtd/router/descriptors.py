"""How the router shares out its descriptors, so that nobody who opens connections takes those of others.

The kernel gives the lowest free number. So whoever is refused above a number leaves what is higher to others: clients
stop at three quarters of all, and the rest is for workers and for what the router cannot do without.
"""

from __future__ import annotations

import resource
from collections.abc import Callable

OWN_FDS = 32
"""What the router itself has open, more or less."""
SPARED = 1, 4
"""Part of all descriptors that nothing which clients open or send may have."""
WORKERS = 1, 8
"""Part of all descriptors that workers' connections may have."""
GUESTS, OFFERERS, ARENAS = (1, 2), (1, 4), (1, 4)
"""Parts of a tenant's share: connections of clients, those on which they offer shared memory, and that memory."""


class Descriptors:
    """The shares of the tenants.

    Args:
        count_tenants: how many tenants there are.

    Attributes:
        max_fd: highest descriptor that what clients open or send may have.
    """

    def __init__(self, count_tenants: Callable[[], int]) -> None:
        part, whole = SPARED
        self.max_fd = most_descriptors() * (whole - part) // whole
        self._count_tenants = count_tenants

    def share(self, most: int, part: tuple[int, int]) -> int:
        """How many a tenant may have of one kind: `most`, or its part of the tenant's share where that is less."""
        share = (self.max_fd - OWN_FDS) // max(1, self._count_tenants())
        return max(1, min(most, share * part[0] // part[1]))


def most_descriptors() -> int:
    """How many descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def most_workers(most: int) -> int:
    """How many connections of workers there may be: `most`, or fewer where descriptors are scarce."""
    return max(1, min(most, most_descriptors() * WORKERS[0] // WORKERS[1]))
