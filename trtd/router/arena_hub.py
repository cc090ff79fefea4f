"""What the sockets of all tenants share at which arenas are offered. The sockets are in `trtd.router.arenas`."""

from __future__ import annotations

import resource
import select
from collections.abc import Callable

from trtd.core.ids import TenantName
from trtd.observe import Logger, RateLimit
from trtd.router.access import Access
from trtd.router.lifetimes import Lifetimes

MAX_EVENTS = 16
"""Sockets that are served in one turn of the router's loop; each gives one packet, or one new connection."""

_READABLE = select.EPOLLIN | select.EPOLLRDHUP


class ArenaHub:
    """One poller for the sockets of all tenants, and what else they share.

    Args:
        access: says who may use a tenant.
        socket_mode: permission bits of the socket files.
        has_bundles: whether the tenants' endpoints take several requests in one message.
        tell_workers: called with the key of each arena that has ended.
        clock: monotonic seconds.
        log: for refusals, and for sockets that cannot be opened.

    Attributes:
        fd: readable when `serve` has something to do.
        access: as given, likewise `socket_mode` and `has_bundles`.
        lifetimes: ends the arenas of all tenants.
        max_fd: highest descriptor that connections and arenas may have.
    """

    def __init__(
        self,
        access: Access,
        socket_mode: int,
        *,
        has_bundles: bool,
        tell_workers: Callable[[int], None],
        clock: Callable[[], float],
        log: Logger,
    ) -> None:
        self.access = access
        self.socket_mode = socket_mode
        self.has_bundles = has_bundles
        self.lifetimes = Lifetimes(tell_workers)
        # The kernel gives the lowest free number, so what is above is kept for what the router cannot do without:
        # libzmq aborts where it gets no descriptor.
        self.max_fd = resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3 // 4
        self._clock = clock
        self._log = log
        self._limit = RateLimit(1.0)
        self._poller = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self.fd = self._poller.fileno()
        self.watch(self.lifetimes.fd, self.lifetimes.sweep)

    def serve(self) -> None:
        """Serve the sockets that have something, as far as one turn of the loop goes. Never waits."""
        for fd, _ in self._poller.poll(0, MAX_EVENTS):
            handler = self._handlers.get(fd)
            # One that was served before it in this turn may have closed it.
            if handler is not None:
                handler()

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call `handler` when the descriptor is readable, or its peer is gone."""
        self._poller.register(fd, _READABLE)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """The opposite, before the descriptor is closed."""
        self._poller.unregister(fd)
        del self._handlers[fd]

    def report(self, event: str, tenant: TenantName, **fields: object) -> None:
        """Log what a client did, without letting it fill the log."""
        held_back = self._limit.take(f"{event} {tenant}", self._clock())
        if held_back is not None:
            self._log.warning(event, tenant=tenant, held_back=held_back, **fields)

    def close(self) -> None:
        """Serve nobody any more; tenants are closed before."""
        self.unwatch(self.lifetimes.fd)
        self.lifetimes.close()
        self._poller.close()
