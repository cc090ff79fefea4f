"""All tenants' endpoints: opened and closed as the supervisor says, watched for input, flushed of late answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import zmq

from trtd.core.ids import TenantName
from trtd.errors import InvalidConfig
from trtd.observe import Logger
from trtd.router.access import Access
from trtd.router.arena_hub import ArenaHub
from trtd.router.arenas import TenantArenas
from trtd.router.descriptors import Descriptors
from trtd.router.endpoints import AnySource, Endpoint
from trtd.router.guests import Received
from trtd.router.poller import Poller
from trtd.router.reception import Reception
from trtd.router.sockets import Port
from trtd.router.turns import ReadTurns
from trtd.wire.settings import RouterSettings, TenantEndpoint


class Front:
    """The endpoints of all tenants.

    Args:
        context: of the process.
        settings: the router's.
        access: obeys the tenants' lists.
        used: ports that were used to send, see `Port`.
        watch: called with a port's fd and True when it opens, with False before it closes.
        log: for endpoints that cannot be opened.
        clock: monotonic seconds.
        end_arena: tells workers of the end of an arena, by its key.

    Attributes:
        endpoints: by tenant.
        late: those that have answers for clients that did not read yet.
        bundling: those that have answers which leave together.
        turns: which of their sockets may have input.
        paused: tenants of which nothing is read at the moment, and until when.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: RouterSettings,
        access: Access,
        used: set[Port],
        watch: Callable[[int, bool], None],
        log: Logger,
        clock: Callable[[], float],
        end_arena: Callable[[int], None],
    ) -> None:
        self.endpoints: dict[TenantName, Endpoint] = {}
        self.late: set[Endpoint] = set()
        self.bundling: set[Endpoint] = set()
        self._context = context
        self._settings = settings
        self._listeners = {listener.address: listener.fd for listener in settings.listeners}
        self._access = access
        self._used = used
        self._watch = watch
        self._log = log
        self._sources: dict[int, AnySource] = {}
        self.turns = ReadTurns(clock)
        self._reported: set[tuple[str, str]] = set()
        self.paused: dict[TenantName, float] = {}
        self._poller = Poller()
        descriptors = Descriptors(lambda: len(self.endpoints))
        self._reception = Reception(access, self._poller, descriptors, clock, log)
        self._arenas = ArenaHub(
            access,
            self._poller,
            descriptors,
            settings.socket_mode,
            has_bundles=True,
            tell_workers=end_arena,
            clock=clock,
            log=log,
        )
        watch(self._poller.fd, True)

    def configure(self, settings: TenantEndpoint) -> None:
        """Open a tenant's endpoint, or change it; requests that wait there are read when the loop comes to it."""
        tenant = TenantName(settings.tenant)
        self.resume(tenant)
        self._access.configure(settings)
        self.turns.add(tenant, settings.limits.weight)
        endpoint = self.endpoints.get(tenant)
        if endpoint is None:
            arenas = TenantArenas(self._arenas, settings)
            endpoint = Endpoint(
                self._context,
                settings,
                self._settings.socket_mode,
                self._used,
                self.late,
                self.bundling,
                arenas,
                self._reception,
            )
            self.endpoints[tenant] = endpoint
        else:
            self._unwatch(endpoint, endpoint.stale_sources(settings))
            endpoint.configure(settings)
        self._open(endpoint)

    def forget(self, tenant: TenantName) -> None:
        """Close a tenant's endpoint."""
        self.resume(tenant)
        endpoint = self.endpoints.pop(tenant, None)
        if endpoint is None:
            return
        self._unwatch(endpoint, list(endpoint.sources.values()))
        self.turns.remove(tenant)
        endpoint.close()
        self._access.forget(tenant)

    def look_after(self, now: float) -> None:
        """Open again what was lost, or could not be opened, and send away who does not come to the point."""
        self._reception.expire(now)
        for endpoint in self.endpoints.values():
            endpoint.look_after(now)
            if endpoint.missing:
                self._open(endpoint)

    def _open(self, endpoint: Endpoint) -> None:
        self.resume(endpoint.tenant)
        for address in endpoint.missing:
            try:
                source = endpoint.bind(address, self._settings.curve_secret_key_file, self._listeners.get(address))
            except (OSError, zmq.ZMQError, InvalidConfig) as error:
                endpoint.problems[address] = f"{address} cannot be opened: {error}"
                if (endpoint.tenant, address) not in self._reported:
                    self._reported.add((endpoint.tenant, address))
                    self._log.error("endpoint.open_failed", tenant=endpoint.tenant, address=address, cause=str(error))
                continue
            self._reported.discard((endpoint.tenant, address))
            self._sources[source.port.fd] = source
            self._watch(source.port.fd, True)
            self.turns.wake(source)
            self._log.debug("endpoint.opened", tenant=endpoint.tenant, address=address)

    def _unwatch(self, endpoint: Endpoint, sources: list[AnySource]) -> None:
        for source in sources:
            self._watch(source.port.fd, False)
            del self._sources[source.port.fd]
            self.turns.drop(source)
            self._log.debug("endpoint.closed", tenant=endpoint.tenant, address=source.port.address)

    def pause(self, tenant: TenantName, until: float) -> None:
        """Read nothing of a tenant until then, or until `resume`: its requests would only wait here instead.

        They gather in its sockets, and wake nobody up.
        """
        endpoint = self.endpoints.get(tenant)
        if endpoint is None:
            return
        if tenant not in self.paused:
            for source in endpoint.sources.values():
                self._watch(source.port.fd, False)
                self.turns.drop(source)
        self.paused[tenant] = until

    def resume(self, tenant: TenantName) -> None:
        """Read a tenant's requests again, if that was paused."""
        if self.paused.pop(tenant, None) is None:
            return
        for source in self.endpoints[tenant].sources.values():
            self._watch(source.port.fd, True)
            self.turns.wake(source)

    def resume_due(self, now: float) -> None:
        """Read again what was paused for long enough."""
        for tenant in [tenant for tenant, until in self.paused.items() if until <= now]:
            self.resume(tenant)

    def next_resume(self) -> float:
        """When `resume_due` has something to do."""
        return min(self.paused.values(), default=math.inf)

    def heed(self, fd: int) -> bool:
        """The source with this fd may have input, or the arenas' sockets have; False when it is none of these."""
        source = self._sources.get(fd)
        if source is not None:
            if source.endpoint.tenant not in self.paused:
                self.turns.wake(source)
            return True
        if fd != self._poller.fd:
            return False
        self._poller.serve()
        return True

    def read(self, take: Callable[[Endpoint, Received], int]) -> None:
        """Hand messages to `take`, in the fair order, for one turn of the loop."""
        self.turns.read(take)

    def send_bundles(self, now: float) -> None:
        """Send the answers that were kept to leave together."""
        while self.bundling:
            self.bundling.pop().send_bundles(now)

    def close(self) -> None:
        """Close every endpoint."""
        for tenant in list(self.endpoints):
            self.forget(tenant)
        self._reception.close()
        self._arenas.close()
        self._watch(self._poller.fd, False)
        self._poller.close()
