"""What outlives a router: which requests that were sent again it had in hand, and which have ended routers before.

A router writes it into a page that its successor inherits. So a request that ends routers is found like one that ends
workers: those that were in hand are taken apart, first in groups and then alone, and one that was alone in hand when
two routers died is refused. Only requests that were sent again after a router's death are ever written there.

Pure: the page is any writable buffer.
"""

from __future__ import annotations

from struct import Struct

from trtd.core.ids import REQUEST_ID_BYTES, RequestId
from trtd.core.inflight import LONE_DEATHS_TO_CONVICT

MAX_IN_HAND = 128
"""Most requests written at a time; what is beyond is taken without being written."""
PAGE_BYTES = 8192

_HEAD = Struct("<IB")
_MAGIC = 0x31667274
"""`trf1`, read as little endian."""
_FLYING, _LANDED = 1, 0
_SLOT_BYTES = 1 + REQUEST_ID_BYTES
"""How often it was alone in hand when a router died, and one more than that; 0 for no request. Then the id."""
_HAND_AT = 64
_SUSPECTS_AT = _HAND_AT + MAX_IN_HAND * _SLOT_BYTES


class Flight:
    """The page as one life of a router has it.

    Args:
        page: of `PAGE_BYTES`; what it says of the former life is read, and this life begins.

    Attributes:
        has_crashed: whether the former life did not end as it should.
        suspects: requests that the former one had in hand, and how many died with them alone.
        in_hand: those of this life.
    """

    def __init__(self, page: memoryview | bytearray) -> None:
        self._page = page
        self.suspects: dict[RequestId, int] = {}
        self.in_hand: dict[RequestId, int] = {}
        magic, state = _HEAD.unpack_from(page)
        self.has_crashed = magic == _MAGIC and state == _FLYING
        if self.has_crashed:
            self._blame()
        self._free = list(range(MAX_IN_HAND))
        page[:] = bytes(len(page))
        for number, (request, lone_deaths) in enumerate(self.suspects.items()):
            self._write(_SUSPECTS_AT, number, request, lone_deaths)
        _HEAD.pack_into(page, 0, _MAGIC, _FLYING)

    def _blame(self) -> None:
        """The former life had these in hand; where that was one, it is said to be to blame."""
        known = self._read(_SUSPECTS_AT)
        in_hand = self._read(_HAND_AT)
        was_alone = len(in_hand) == 1
        convicted = {request: count for request, count in known.items() if count >= LONE_DEATHS_TO_CONVICT}
        blamed = {request: known.get(request, 0) + was_alone for request in in_hand}
        # What was suspected and is not in hand was answered, or waited: it did not do it.
        self.suspects = dict(list({**convicted, **blamed}.items())[-MAX_IN_HAND:])

    def take(self, request: RequestId) -> bool:
        """Write that a request is in hand; False where there is no room."""
        if request in self.in_hand:
            return True
        if not self._free:
            return False
        slot = self._free.pop()
        self._write(_HAND_AT, slot, request, 0)
        self.in_hand[request] = slot
        return True

    def let_go(self, request: RequestId) -> None:
        """It is not in hand any more, and not suspected."""
        slot = self.in_hand.pop(request, None)
        if slot is not None:
            self._page[_HAND_AT + slot * _SLOT_BYTES] = 0
            self._free.append(slot)
        if self.suspects.get(request, LONE_DEATHS_TO_CONVICT) < LONE_DEATHS_TO_CONVICT:
            del self.suspects[request]

    def land(self) -> None:
        """This life ends as it should: nothing that it had in hand is to blame."""
        _HEAD.pack_into(self._page, 0, _MAGIC, _LANDED)

    def _write(self, start: int, number: int, request: RequestId, lone_deaths: int) -> None:
        at = start + number * _SLOT_BYTES
        self._page[at + 1 : at + _SLOT_BYTES] = request
        # Last, so that a slot that is half written is none.
        self._page[at] = 1 + lone_deaths

    def _read(self, start: int) -> dict[RequestId, int]:
        found = {}
        for at in range(start, start + MAX_IN_HAND * _SLOT_BYTES, _SLOT_BYTES):
            if count := self._page[at]:
                found[RequestId(bytes(self._page[at + 1 : at + _SLOT_BYTES]))] = count - 1
        return found
