"""The byte-exact ledger of device memory under two watermarks: what is held, what was refused, and how full it is.

Who allocates, on which device and under which lock is left to the shell (`trtd.runtime.tensorrt.allocator`). Here is
only arithmetic: a reservation comes before the allocation that it stands for, so that the hard watermark is never
passed, not even for an instant.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

HYSTERESIS = 0.9
"""Part of the soft watermark below which the level is low again, so that one block more or less does not flap."""


class Level(StrEnum):
    """How full the memory is."""

    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Two bounds in bytes; 0 stands for none.

    Attributes:
        soft_bytes: above it the level is HIGH until it has fallen below `HYSTERESIS` of it.
        hard_bytes: no reservation goes above it.
    """

    soft_bytes: int = 0
    hard_bytes: int = 0

    def __post_init__(self) -> None:
        if self.soft_bytes < 0 or self.hard_bytes < 0:
            raise ValueError("a watermark is not negative")
        if self.hard_bytes and self.soft_bytes > self.hard_bytes:
            raise ValueError(f"soft watermark {self.soft_bytes} is above the hard one, {self.hard_bytes}")


@dataclass(frozen=True, slots=True)
class Refused:
    """A reservation that was not made.

    Attributes:
        size_bytes: what was asked for.
        live_bytes: what was held.
        hard_bytes: the bound; 0 where the device, not the ledger, refused.
    """

    size_bytes: int
    live_bytes: int
    hard_bytes: int

    def __str__(self) -> str:
        if not self.hard_bytes:
            return f"the device has no {self.size_bytes} bytes left, with {self.live_bytes} bytes held"
        return (
            f"{self.size_bytes} bytes more than the {self.live_bytes} bytes held would pass the hard watermark of "
            f"{self.hard_bytes} bytes"
        )


@dataclass(frozen=True, slots=True)
class OwnerState:
    """What one owner (a model) has of the ledger.

    Attributes:
        owner: its name.
        live_bytes: held now.
        allocations: made since the start. allocated_bytes: their sum. largest_bytes: the largest of them.
        refused_count: reservations and allocations refused.
    """

    owner: str
    live_bytes: int = 0
    allocations: int = 0
    allocated_bytes: int = 0
    largest_bytes: int = 0
    refused_count: int = 0


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The ledger at one instant, in bytes and counts.

    Attributes:
        live_bytes: held now.
        peak_bytes: highest so far.
        blocks: held now.
        allocations: made since the start.
        allocated_bytes: their sum.
        largest_bytes: the largest of them.
        refused_count: reservations and allocations refused.
        refused_bytes: their sum.
        strays: releases of addresses that were not held.
        level: how full it is.
        owners: by name, those that ever asked.
    """

    live_bytes: int
    peak_bytes: int
    blocks: int
    allocations: int
    allocated_bytes: int
    largest_bytes: int
    refused_count: int
    refused_bytes: int
    strays: int
    level: Level
    owners: tuple[OwnerState, ...] = ()


@dataclass(slots=True)
class _Account:
    """Of one owner; see `OwnerState`."""

    live_bytes: int = 0
    allocations: int = 0
    allocated_bytes: int = 0
    largest_bytes: int = 0
    refused_count: int = 0

    def note(self, size_bytes: int) -> None:
        """A block was allocated."""
        self.live_bytes += size_bytes
        self.allocations += 1
        self.allocated_bytes += size_bytes
        self.largest_bytes = max(self.largest_bytes, size_bytes)


class DeviceLedger:
    """Accounts of one pool of device memory. Not thread-safe; its owner has a lock."""

    def __init__(self, watermarks: Watermarks) -> None:
        self.watermarks = watermarks
        self._blocks: dict[int, tuple[int, str]] = {}
        self._owners: dict[str, _Account] = {}
        self._live = self._peak = 0
        self._refused_bytes = self._strays = 0
        self._level = Level.LOW

    @property
    def live_bytes(self) -> int:
        """Held or reserved now."""
        return self._live

    @property
    def level(self) -> Level:
        """How full it is."""
        return self._level

    def reserve(self, size_bytes: int, owner: str = "") -> Refused | None:
        """Make room for a block that is about to be allocated for an owner.

        Returns:
            None when there is room; `settle` or `cancel` must follow. Else why not, counted.
        """
        if size_bytes <= 0:
            raise ValueError(f"a block of {size_bytes} bytes")
        hard = self.watermarks.hard_bytes
        if hard and self._live + size_bytes > hard:
            return self._refuse(size_bytes, hard, owner)
        self._live += size_bytes
        self._update()
        return None

    def settle(self, address: int, size_bytes: int, owner: str = "") -> None:
        """The block that was reserved has this address. One that was held there already is gone; it is a stray."""
        former = self._blocks.pop(address, None)
        if former is not None:
            self._strays += 1
            self._forget(*former)
        self._blocks[address] = (size_bytes, owner)
        self._account(owner).note(size_bytes)
        # The peak is that of memory which was really held.
        self._peak = max(self._peak, self._live)
        self._update()

    def cancel(self, size_bytes: int, owner: str = "") -> Refused:
        """The device refused what was reserved; counted as refused."""
        self._live -= size_bytes
        self._update()
        return self._refuse(size_bytes, 0, owner)

    def release(self, address: int) -> int | None:
        """A block is given back.

        Returns:
            Its size in bytes; None for an address that is not held, which is counted as a stray.
        """
        block = self._blocks.pop(address, None)
        if block is None:
            self._strays += 1
            return None
        self._forget(*block)
        self._update()
        return block[0]

    def state(self) -> LedgerState:
        """The figures at this instant."""
        accounts = self._owners.values()
        return LedgerState(
            live_bytes=self._live,
            peak_bytes=self._peak,
            blocks=len(self._blocks),
            allocations=sum(one.allocations for one in accounts),
            allocated_bytes=sum(one.allocated_bytes for one in accounts),
            largest_bytes=max((one.largest_bytes for one in accounts), default=0),
            refused_count=sum(one.refused_count for one in accounts),
            refused_bytes=self._refused_bytes,
            strays=self._strays,
            level=self._level,
            owners=tuple(OwnerState(owner, **asdict(self._owners[owner])) for owner in sorted(self._owners)),
        )

    def _account(self, owner: str) -> _Account:
        account = self._owners.get(owner)
        if account is None:
            account = self._owners[owner] = _Account()
        return account

    def _forget(self, size_bytes: int, owner: str) -> None:
        self._live -= size_bytes
        self._account(owner).live_bytes -= size_bytes

    def _refuse(self, size_bytes: int, hard_bytes: int, owner: str) -> Refused:
        self._account(owner).refused_count += 1
        self._refused_bytes += size_bytes
        return Refused(size_bytes, self._live, hard_bytes)

    def _update(self) -> None:
        soft = self.watermarks.soft_bytes
        if not soft:
            return
        if self._live > soft:
            self._level = Level.HIGH
        elif self._live < soft * HYSTERESIS:
            self._level = Level.LOW
