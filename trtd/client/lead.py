"""SHELL: which of the threads of a client leads, and where the others wait.

Knows threads and handles only. What a leader does is in `trtd.client.shared`. While any thread is seated another one
leads: the lead goes from hand to hand, so that no request is ever left to nobody.
"""

from __future__ import annotations

import math
import os
import threading
import time
from typing import Any

from trtd.client.handle import Handle


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
    """Who leads. Its methods want `lock` to be held, but for `wake`.

    Attributes:
        lock: never held across anything that blocks.
        thread: that leads, None while nobody does.
        handle: that the leader waits for, None for a leader that waits for none of its own.
        is_asleep: whether the leader waits for its descriptors, or is about to and will not look at anything before.
        looks_again_at: the instant at which a leader that is asleep wakes up by itself.
        followers: seats whose threads wait, in the order in which they sat down.
        count: how often the lead was taken.
        due_back: threads that were released together and have not come back; many of them soon will, with their next
            requests. A guess.
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
        self.followers: dict[Seat, None] = {}

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

    def wake(self) -> None:
        """Have a leader that is asleep look around. One that is not does so anyway."""
        if self.is_asleep:
            self.is_asleep = False
            os.eventfd_write(self.wake_fd, 1)

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self.wake_fd)

    def _give(self, thread: int, handle: Handle[Any] | None) -> None:
        self.thread, self.handle = thread, handle
        self.count += 1
