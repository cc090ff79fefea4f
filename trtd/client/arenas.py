"""SHELL: the arenas of one client: made as they are needed, offered to each new router, dropped when they must be.

Nothing here waits and nothing here has to work: where there is no accepted arena, tensors travel in frames. Safe for
several threads. Which request uses what is in `trtd.client.placing`, when an area is safe to use again in
`trtd.client.exchange`.
"""

from __future__ import annotations

import mmap
import threading

from trtd.client.memory import Arena, Region
from trtd.client.offers import Offers
from trtd.client.regions import aligned
from trtd.wire.arenas import PLACE_ALIGNMENT_BYTES, ArenaAccepted, ArenaRef, ArenaRefused, ArenaWithdrawn, Welcome

FIRST_ARENA_BYTES = 8 * 1024 * 1024
LARGEST_ARENA_BYTES = 256 * 1024 * 1024
"""Arenas double up to here; a tensor that needs more gets one of its own."""
NEEDS_PER_ARENA = 4
UNKNOWN_LIMIT_BYTES = 256 * 1024 * 1024
"""What is made at most while the router has not said how much it takes."""
PAUSE_S = 5.0
"""How long after a refusal, or a failure, no new arena is made and no connection tried."""
IDLE_S = 10.0
"""How long an arena without regions is kept beside others."""
RETIRED_SHARE = 4
"""An arena of which one part in so many is retired is replaced."""


class Arenas:
    """All shared memory of one client.

    Attributes:
        epoch: grows whenever keys lose their meaning; a reference holds in the epoch in which it was made.
        has_bundles: whether the endpoint has said that it takes bundles.
        is_expecting: whether `attend` has something to look for.
    """

    def __init__(self, path: str | None) -> None:
        """Take the path of the tenant's socket for arenas; None where there can be none, as over tcp."""
        self.epoch = 0
        self.has_bundles = False
        self.is_expecting = False
        self._path = path
        self._lock = threading.Lock()
        self._arenas: list[Arena] = []
        self._offers: Offers | None = None
        self._limit_bytes = UNKNOWN_LIMIT_BYTES if path is not None else 0
        self._is_connected = False
        self._is_welcome = False
        self._connects_at = 0.0
        self._grows_at = 0.0
        self._count = 0

    # The connection.

    def connected(self, now: float) -> None:
        """There is a connection to a router: offer it everything."""
        with self._lock:
            self._disconnect()
            self._is_connected = True
            self._connects_at = self._grows_at = now
            self._attend(now)

    def disconnected(self) -> None:
        """The router is gone. Arenas with retired places are not offered again: a worker may still write into them."""
        with self._lock:
            self._is_connected = False
            self.is_expecting = False
            self._disconnect()

    def attend(self, now: float) -> None:
        """Read what the router says, and offer what it has not been offered."""
        with self._lock:
            self._attend(now)

    def close(self) -> None:
        """Release every descriptor; arrays live on. Repeatable."""
        self.disconnected()
        with self._lock:
            self._limit_bytes = 0
            for arena in self._arenas:
                arena.close()
            self._arenas.clear()

    # Regions.

    def take(self, size_bytes: int, now: float, *, is_area: bool = False) -> Region | None:
        """A region that requests may name; None where there is none yet. Makes and offers what is missing.

        Args:
            size_bytes: of the region.
            now: monotonic seconds.
            is_area: whether it is for outputs. They get half of the memory at most, because callers keep answers.
        """
        with self._lock:
            if self._offers is None or self._limit_bytes == 0:
                return None
            if is_area and size_bytes + self._area_bytes() > self._limit_bytes // 2:
                return None
            return self._take(size_bytes, now, is_area=is_area, is_accepted=True)

    def take_unoffered(self, size_bytes: int, now: float) -> Region | None:
        """A region in any arena, accepted or not, for an array that will be sent later."""
        with self._lock:
            return self._take(size_bytes, now, is_area=False, is_accepted=False)

    def find(self, address: int, size_bytes: int) -> ArenaRef | None:
        """The reference to the bytes at this address; None when requests cannot name them."""
        with self._lock:
            for arena in self._arenas:
                offset = arena.offset_of(address, size_bytes)
                if offset is not None:
                    if arena.key is None or offset % PLACE_ALIGNMENT_BYTES:
                        return None
                    return ArenaRef(arena.key, offset, size_bytes)
        return None

    def retire(self, region: Region) -> None:
        """Never use the bytes of this area again, and replace its arena when too much of it has gone that way."""
        with self._lock:
            if region.is_retired:
                return
            arena = region.arena
            arena.retire(region)
            if arena.regions.retired_bytes * RETIRED_SHARE >= arena.size_bytes:
                self._withdraw(arena)

    def disown(self, keys: set[int], now: float) -> None:
        """The router says that it does not know one of these arenas: name them no more.

        Where it turns out that the router is a new one, they keep their memory, and are offered to it.
        """
        with self._lock:
            self._attend(now)
            for arena in [arena for arena in self._arenas if arena.key in keys]:
                self._withdraw(arena)

    # The caller holds the lock.

    def _take(self, size_bytes: int, now: float, *, is_area: bool, is_accepted: bool) -> Region | None:
        is_on_its_way = False
        for arena in self._arenas:
            arena.take_back()
            if is_accepted and arena.key is None:
                is_on_its_way = is_on_its_way or arena.size_bytes - arena.regions.used_bytes >= size_bytes
                continue
            region = arena.take(size_bytes, now, is_area=is_area)
            if region is not None:
                return region
        if is_on_its_way:
            return None
        grown = self._grow(size_bytes, now)
        return None if grown is None or is_accepted else grown.take(size_bytes, now, is_area=is_area)

    def _area_bytes(self) -> int:
        area_bytes = 0
        for arena in self._arenas:
            arena.take_back()
            area_bytes += arena.area_bytes
        return area_bytes

    def _grow(self, size_bytes: int, now: float) -> Arena | None:
        if now < self._grows_at:
            return None
        self._withdraw_idle(now)
        needed = _whole_pages(aligned(size_bytes))
        wanted = max(FIRST_ARENA_BYTES << len(self._arenas), _whole_pages(NEEDS_PER_ARENA * needed))
        room = self._limit_bytes - sum(arena.size_bytes for arena in self._arenas)
        size = max(min(wanted, LARGEST_ARENA_BYTES, room // mmap.PAGESIZE * mmap.PAGESIZE), needed)
        if size > room:
            return None
        try:
            arena = Arena(self._count, size, now)
        except (OSError, ValueError):
            self._grows_at = now + PAUSE_S
            return None
        self._count += 1
        self._arenas.append(arena)
        if self._offers is not None:
            self.is_expecting = True
            self._attend(now)
        return arena

    def _withdraw_idle(self, now: float) -> None:
        idle = [arena for arena in self._arenas if not arena.regions.used_bytes and now - arena.used_at > IDLE_S]
        for arena in idle:
            self._withdraw(arena)

    def _withdraw(self, arena: Arena) -> None:
        if arena in self._arenas:
            self._arenas.remove(arena)
        if arena.key is not None and self._offers is not None:
            self._offers.tell(ArenaWithdrawn(arena.key))
        arena.key = None
        arena.close()

    def _disconnect(self) -> None:
        self.epoch += 1
        self.has_bundles = self._is_welcome = False
        if self._offers is not None:
            self._offers.close()
            self._offers = None
        for arena in list(self._arenas):
            arena.key, arena.is_offered = None, False
            if arena.regions.retired_bytes:
                self._withdraw(arena)

    def _attend(self, now: float) -> None:
        if not self._is_connected or self._path is None or (self._offers is None and now < self._connects_at):
            return
        try:
            if self._offers is None:
                self._offers = Offers(self._path)
                self._is_welcome = False
            while (packet := self._offers.receive()) is not None:
                if isinstance(packet, Welcome):
                    self._welcomed(packet)
                elif isinstance(packet, ArenaAccepted):
                    self._accepted(packet)
                elif isinstance(packet, ArenaRefused):
                    self._refused(packet, now)
            self._offer_all()
        except OSError:
            self._disconnect()
            self._connects_at = now + PAUSE_S
        self.is_expecting = not self._is_welcome or any(arena.key is None for arena in self._arenas)

    def _welcomed(self, welcome: Welcome) -> None:
        self._is_welcome = True
        self.has_bundles = welcome.has_bundles
        self._limit_bytes = welcome.max_arena_bytes

    def _offer_all(self) -> None:
        if self._offers is None or not self._is_welcome:
            return
        room = self._limit_bytes
        for arena in list(self._arenas):
            room -= arena.size_bytes
            if room < 0:
                # Made before the router said how much it takes; arrays in it travel as ordinary ones.
                self._withdraw(arena)
            elif not arena.is_offered:
                arena.is_offered = self._offers.offer(arena.number, arena.size_bytes, arena.fd)

    def _accepted(self, packet: ArenaAccepted) -> None:
        for arena in self._arenas:
            if arena.number == packet.number:
                arena.key = packet.key
                return
        if self._offers is not None:
            self._offers.tell(ArenaWithdrawn(packet.key))

    def _refused(self, packet: ArenaRefused, now: float) -> None:
        # Somebody else's use of the tenant's memory may be the reason, so it is worth trying again, later.
        self._grows_at = now + PAUSE_S
        for arena in list(self._arenas):
            if arena.number == packet.number:
                self._withdraw(arena)


def _whole_pages(size_bytes: int) -> int:
    return (size_bytes + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
