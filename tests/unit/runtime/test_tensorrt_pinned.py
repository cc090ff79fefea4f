"""Which shared memory of clients is pinned, and what a refusal of the driver changes."""

from __future__ import annotations

import pytest

from trtd.runtime.tensorrt.pinned import PinnedMemory


class Driver:
    """Pins what it is asked to, unless it is told to refuse; notes all."""

    def __init__(self) -> None:
        self.refusal = ""
        self.calls: list[tuple[str, int]] = []
        self.events: list[tuple[str, dict]] = []

    def register(self, address: int, size_bytes: int) -> str:
        assert size_bytes > 0
        self.calls.append(("register", address))
        return self.refusal

    def unregister(self, address: int) -> None:
        self.calls.append(("unregister", address))

    def tell(self, event: str, fields: dict) -> None:
        self.events.append((event, fields))


@pytest.fixture
def driver():
    return Driver()


@pytest.fixture
def pinned(driver):
    return PinnedMemory(driver.register, driver.unregister, driver.tell)


def test_only_what_lies_in_one_pinned_range_is_held(pinned):
    """A range that reaches over an edge, or into memory that was given up, is not pinned."""
    pinned.pin(1000, 100)
    pinned.pin(3000, 100)
    assert pinned.holds(1000, 100)
    assert pinned.holds(3050, 50)
    for address, size in ((999, 10), (1000, 101), (1099, 2), (2000, 1), (900, 4000), (3100, 1)):
        assert not pinned.holds(address, size)
    pinned.unpin(1000)
    assert not pinned.holds(1000, 1)
    assert pinned.holds(3000, 1)
    assert len(pinned) == 1


def test_each_range_is_given_back_to_the_driver_once(pinned, driver):
    """What was pinned is unregistered by its address, and a second time nothing happens."""
    pinned.pin(1000, 100)
    pinned.unpin(1000)
    pinned.unpin(1000)
    assert driver.calls == [("register", 1000), ("unregister", 1000)]


def test_a_refusal_is_told_once_and_changes_nothing_else(pinned, driver):
    """Memory that the driver does not pin is not held nor unregistered; one line says so, however often it happens."""
    driver.refusal = "cudaHostRegister: CUDA error 2"
    for address in (1000, 2000):
        pinned.pin(address, 100)
        assert not pinned.holds(address, 100)
        pinned.unpin(address)
    assert driver.calls == [("register", 1000), ("register", 2000)]
    assert driver.events == [("arena.pin_refused", {"size_bytes": 100, "cause": driver.refusal})]
