"""Pinning beside the loop: whoever asks goes on at once, and memory is unmapped only when the driver has let go."""

from __future__ import annotations

import threading

import pytest

from trtd.runtime.tensorrt.pinned import PinnedMemory
from trtd.runtime.tensorrt.pinner import Pinner

PATIENCE_S = 30


class Driver:
    """A driver that takes until the test lets it go on; notes all."""

    def __init__(self):
        self.calls = []
        self.began, self.may_end = threading.Semaphore(0), threading.Semaphore(0)

    def register(self, address, size_bytes):
        self.began.release()
        assert self.may_end.acquire(timeout=PATIENCE_S)
        self.calls.append(("register", address))
        return ""

    def unregister(self, address):
        self.calls.append(("unregister", address))


@pytest.fixture
def driver():
    return Driver()


@pytest.fixture
def pinned(driver):
    return PinnedMemory(driver.register, driver.unregister, lambda *_: None)


@pytest.fixture
def pinner(pinned):
    made = Pinner(pinned)
    yield made
    made.close()
    assert made._thread is None or not made._thread.is_alive()


def unmapped(pinner, driver, address):
    """Let go of memory; an event that is set when it may be unmapped."""
    event = threading.Event()
    pinner.unpin(address, lambda: (driver.calls.append(("unmapped", address)), event.set()))
    return event


def test_nobody_waits_for_the_driver(pinner, pinned, driver):
    """While the driver pins, the caller goes on and the memory is not pinned yet; afterwards it is."""
    pinner.pin(1000, 100)
    assert driver.began.acquire(timeout=PATIENCE_S)
    assert not pinned.holds(1000, 1)
    driver.may_end.release()
    pinner.pin(5000, 100)
    assert driver.began.acquire(timeout=PATIENCE_S)
    assert pinned.holds(1000, 100)
    driver.may_end.release()


def test_memory_is_unmapped_after_the_driver_let_go(pinner, pinned, driver):
    """What is given up while it is being pinned is pinned, unpinned and only then unmapped."""
    pinner.pin(1000, 100)
    assert driver.began.acquire(timeout=PATIENCE_S)
    event = unmapped(pinner, driver, 1000)
    assert not event.is_set()
    driver.may_end.release()
    assert event.wait(PATIENCE_S)
    assert driver.calls == [("register", 1000), ("unregister", 1000), ("unmapped", 1000)]
    assert not len(pinned)


def test_what_was_given_up_is_not_pinned_at_all(pinner, driver):
    """An arena that came and went while the driver was busy never reaches it, and its address may come again."""
    pinner.pin(1000, 100)
    assert driver.began.acquire(timeout=PATIENCE_S)
    pinner.pin(3000, 100)
    event = unmapped(pinner, driver, 3000)
    driver.may_end.release()
    assert event.wait(PATIENCE_S)
    assert driver.calls == [("register", 1000), ("unmapped", 3000)]
    pinner.pin(3000, 200)
    assert driver.began.acquire(timeout=PATIENCE_S)
    driver.may_end.release()


def test_memory_that_was_never_pinned_is_unmapped_too(pinner, driver):
    """Letting go of what the driver refused, or never saw, ends in `then` all the same."""
    pinner.pin(1, 1)
    driver.may_end.release()
    assert unmapped(pinner, driver, 9000).wait(PATIENCE_S)
    assert ("unregister", 9000) not in driver.calls


def test_what_comes_after_the_end_is_done_at_once(pinner, driver):
    """A finalizer that runs after the runtime was closed still gets its memory unmapped."""
    pinner.pin(1000, 100)
    driver.may_end.release()
    pinner.close()
    assert unmapped(pinner, driver, 1000).is_set()
    assert driver.calls == [("register", 1000), ("unregister", 1000), ("unmapped", 1000)]
