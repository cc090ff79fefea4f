"""What the sockets of all tenants share at which arenas are offered. The sockets are in `trtd.router.arenas`."""

from __future__ import annotations

from collections.abc import Callable

from trtd.core.ids import TenantName
from trtd.observe import Logger, RateLimit
from trtd.router.access import Access
from trtd.router.descriptors import Descriptors
from trtd.router.lifetimes import Lifetimes
from trtd.router.poller import Poller


class ArenaHub:
    """What the sockets of all tenants share.

    Args:
        access: says who may use a tenant.
        poller: serves the sockets.
        descriptors: how many connections and arenas a tenant may have.
        socket_mode: permission bits of the socket files.
        has_bundles: whether the tenants' endpoints take several requests in one message.
        tell_workers: called with the key of each arena that has ended.
        clock: monotonic seconds.
        log: for refusals, and for sockets that cannot be opened.

    Attributes:
        access: as given, likewise `poller`, `descriptors`, `socket_mode` and `has_bundles`.
        lifetimes: ends the arenas of all tenants.
    """

    def __init__(
        self,
        access: Access,
        poller: Poller,
        descriptors: Descriptors,
        socket_mode: int,
        *,
        has_bundles: bool,
        tell_workers: Callable[[int], None],
        clock: Callable[[], float],
        log: Logger,
    ) -> None:
        self.access = access
        self.poller = poller
        self.descriptors = descriptors
        self.socket_mode = socket_mode
        self.has_bundles = has_bundles
        self.lifetimes = Lifetimes(tell_workers)
        self._clock = clock
        self._log = log
        self._limit = RateLimit(1.0)
        poller.watch(self.lifetimes.fd, self.lifetimes.sweep)

    def report(self, event: str, tenant: TenantName, **fields: object) -> None:
        """Log what a client did, without letting it fill the log."""
        held_back = self._limit.take(f"{event} {tenant}", self._clock())
        if held_back is not None:
            self._log.warning(event, tenant=tenant, held_back=held_back, **fields)

    def close(self) -> None:
        """Serve nobody any more; tenants are closed before."""
        self.poller.unwatch(self.lifetimes.fd)
        self.lifetimes.close()
