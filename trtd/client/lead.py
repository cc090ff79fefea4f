"""SHELL: which of the threads of a client leads, and where the others wait.

Knows threads and handles only. What a leader does is in `trtd.client.shared`. While any thread is seated another one
leads: the lead goes from hand to hand, so that no request is ever left to nobody.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from typing import Any

from trtd.client.handle import Handle

GATHER_S = 0.0003
"""How long a leader waits for the threads that went on together, so that what they ask next leaves as one message.

Eight threads that do nothing else took about 1000 us for a request without it and 620 us with it, on two busy cores.
"""
MANY = 4
"""So many threads that came back are enough for it to have been worth while, of however many."""
MOST_PAUSES = 63
"""How often at most it is not done after it was in vain: threads that do other things in between come back late."""


class Seat:
    """Where one thread waits for one handle while another thread leads. Made and used once.

    Attributes:
        handle: that is waited for.
        thread: that waits.
        is_offered: whether the lead was given to that thread.
    """

    __slots__ = ("_released", "handle", "is_offered", "thread")

    def __init__(self, handle: Handle[Any]) -> None:
        self.handle = handle
        self.thread = threading.get_ident()
        self.is_offered = False
        self._released = threading.Lock()
        self._released.acquire()

    def wait(self, until: float) -> None:
        """Block until the seat is released or the instant has come."""
        self._released.acquire(timeout=-1 if until == math.inf else max(until - time.monotonic(), 0))

    def release(self) -> None:
        """Let the thread go on; once."""
        self._released.release()


class Lead:
    """Who leads. The methods from `come_back` on are called without `lock`, all others with it.

    Attributes:
        lock: never held across anything that blocks.
        thread: that leads, None while nobody does.
        handle: that the leader waits for, None for a leader that waits for none of its own.
        is_asleep: whether the leader waits for its descriptors, or is about to and will not look at anything before.
        looks_again_at: the instant at which a leader that is asleep wakes up by itself.
        followers: seats whose threads wait, in the order in which they sat down.
        count: how often the lead was taken.
        due_back: how many of the threads that went on together have not come back with their next requests; most soon
            will. Counted without the lock, so a guess.
        wake_fd: readable when a leader that is asleep is to look around.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: int | None = None
        self.handle: Handle[Any] | None = None
        self.is_asleep = False
        self.looks_again_at = math.inf
        self.count = 0
        self.due_back = 0
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._end = weakref.finalize(self, os.close, self.wake_fd)
        self._end.atexit = False
        self.followers: dict[Seat, None] = {}
        self._gathering: threading.Lock | None = None
        self._pauses = self._next_pauses = 0

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread leads."""
        return self.thread == threading.get_ident()

    def take(self, handle: Handle[Any] | None) -> None:
        """The calling thread leads from now on."""
        self._give(threading.get_ident(), handle)

    def give_up(self) -> bool:
        """The leader stops; a thread that is seated leads in its place. Whether there was one."""
        self.thread = self.handle = None
        self.is_asleep = False
        self.looks_again_at = math.inf
        if not self.followers:
            return False
        # Who sat down last will most likely have to wait for longest.
        seat = next(reversed(self.followers))
        self.stand_up(seat)
        seat.is_offered = True
        self._give(seat.thread, seat.handle)
        seat.release()
        return True

    def sit_down(self, handle: Handle[Any]) -> Seat:
        """A seat for the calling thread, which must wait on it without holding the lock."""
        seat = Seat(handle)
        handle.seats += (seat,)
        self.followers[seat] = None
        return seat

    def stand_up(self, seat: Seat) -> None:
        """The thread that sits there does not wait any more."""
        self.followers.pop(seat, None)
        seat.handle.seats = tuple(other for other in seat.handle.seats if other is not seat)

    def release(self, handle: Handle[Any]) -> int:
        """The handle is done: release who waits for it, and return how many threads those are."""
        seats, handle.seats = handle.seats, ()
        for seat in seats:
            del self.followers[seat]
            seat.release()
        if handle is self.handle and not self.is_mine:
            self.wake()
        return len(seats)

    def release_all(self) -> None:
        """Everybody looks around."""
        for seat in list(self.followers):
            self.stand_up(seat)
            seat.release()
        self.wake()

    def close(self) -> None:
        """Release the descriptor; repeatable."""
        self._end()

    def _give(self, thread: int, handle: Handle[Any] | None) -> None:
        self.thread, self.handle = thread, handle
        self.count += 1

    def come_back(self) -> None:
        """A thread that was due back is here, its request in the inbox."""
        self.due_back -= 1
        if self.due_back <= 0 and self._gathering is not None:
            with self.lock:
                if self._gathering is not None:
                    self._gathering.release()
                    self._gathering = None

    def gather(self) -> None:
        """Wait for a moment for the threads that are due back. For the leader."""
        if self._pauses:
            self._pauses -= 1
            self.due_back = 0
            return
        gathering = threading.Lock()
        gathering.acquire()
        with self.lock:
            # Before the count is read, so that whoever comes back after that sees it.
            self._gathering = gathering
            due = self.due_back
            if due <= 0:
                self._gathering = None
                return
        gathering.acquire(timeout=GATHER_S)
        with self.lock:
            self._gathering = None
            is_worth_it = due - self.due_back >= min(due, MANY)
            pauses = self._next_pauses
            self._pauses = self._next_pauses = pauses // 2 if is_worth_it else min(2 * pauses + 1, MOST_PAUSES)
            self.due_back = 0

    def wake(self) -> None:
        """Have a leader that is asleep look around. One that is not does so anyway."""
        if self.is_asleep:
            self.is_asleep = False
            os.eventfd_write(self.wake_fd, 1)
