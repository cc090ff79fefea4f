"""Descriptors that are served a few at a time, each by its own handler: connections that come, arenas, late answers."""

from __future__ import annotations

import select
from collections.abc import Callable

MAX_EVENTS = 16
"""Descriptors that are served in one turn of the router's loop; each gives one packet, or one new connection."""
READABLE = select.EPOLLIN | select.EPOLLRDHUP
WRITABLE = select.EPOLLOUT


class Poller:
    """Descriptors and their handlers.

    Attributes:
        fd: readable when `serve` has something to do.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self.fd = self._epoll.fileno()

    def serve(self) -> None:
        """Serve the descriptors that have something, as far as one turn of the loop goes. Never waits."""
        for fd, _ in self._epoll.poll(0, MAX_EVENTS):
            handler = self._handlers.get(fd)
            # One that was served before it in this turn may have closed it.
            if handler is not None:
                handler()

    def watch(self, fd: int, handler: Callable[[], None], events: int = READABLE) -> None:
        """Call `handler` when one of the events has come for the descriptor, or its peer is gone."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """The opposite, before the descriptor is closed. Nothing happens for one that is not watched."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def is_watched(self, fd: int) -> bool:
        """Whether the descriptor has a handler."""
        return fd in self._handlers

    def close(self) -> None:
        """Serve nothing more."""
        self._epoll.close()
