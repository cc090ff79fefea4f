"""A tenant's endpoint: its sockets, the messages that are read from them, and the answers that leave through them.

What a message means is decided in `trtd.router.intake`; whose turn it is to be read, in `trtd.router.loop`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import zmq

from trtd.core.ids import TenantName
from trtd.errors import Malformed, TooLarge, TrtdError
from trtd.router.arenas import TenantArenas
from trtd.router.backlog import Unread, choose_loser
from trtd.router.callers import Caller, Route
from trtd.router.guests import MAX_BODY_FRAMES, MAX_FRAMES_SKIPPED, Received
from trtd.router.keys import read_secret_key
from trtd.router.reception import LocalPort, Reception
from trtd.router.sockets import WAIT_NOT, Port, PortOptions, Undelivered
from trtd.router.tcp_gate import TcpGate
from trtd.wire.bundles import pack_bundles
from trtd.wire.messages import MAX_HEADER_BYTES, MAX_TENSORS
from trtd.wire.settings import TenantEndpoint

MAX_CONNECTIONS = 2048
"""Most connections of one tenant on its unix socket."""
FRAME_HEADROOM = 2
"""A frame so many times as long as a request may be still gets a typed answer; a longer one ends its connection."""
MAX_KNOWN = 4096
"""Connections of one socket of which is remembered who is at the other end."""
NAMED_BY_LIBZMQ = 0
"""First byte of the routing ids that libzmq makes up, each for one connection only. One that a client chose passes on
to the next connection that chooses it, and so would the answers to the former one."""
PARKED_S = 10.0
"""How long a client may take to read before its answers are given up."""
MAX_PARKED = 16_384
"""Most answers of one tenant that wait for slow readers; their bytes are bounded by those of its queue."""
MAX_RETRIED = 64
"""Slow readers that are tried in one go."""
SMALL_FRAME_BYTES = 64 * 1024
"""Frames below this size may share their memory with others, see `trtd.child.stream`."""
LINGER_S = 2.0
"""How long answers that libzmq holds may take to leave after an endpoint was closed."""


class LocalSource:
    """The unix socket of a tenant as something to read messages from; `read` is the port's."""

    __slots__ = ("endpoint", "port", "read")

    def __init__(self, endpoint: Endpoint, port: LocalPort) -> None:
        self.endpoint = endpoint
        self.port = port
        self.read = port.read


class Source:
    """The ZeroMQ socket of a tenant, likewise."""

    __slots__ = ("_callers", "_is_skipping", "endpoint", "gate", "max_request_bytes", "port")

    def __init__(self, endpoint: Endpoint, port: Port, max_request_bytes: int, gate: TcpGate) -> None:
        self.endpoint = endpoint
        self.port = port
        self.gate = gate
        self.max_request_bytes = max_request_bytes
        self._is_skipping = False
        self._callers: dict[bytes, Caller] = {}

    def read(self) -> Received | int | None:
        """The next message, None when there is none, or the number of frames of an unusable one that were read off."""
        if self._is_skipping:
            return self._skip()
        receive = self.port.receive
        try:
            peer = receive(WAIT_NOT)
        except zmq.Again:
            return None
        frame = receive(0, False)
        caller = self._callers.get(peer) or self._learn(peer, frame)
        size = len(frame)
        if size > MAX_HEADER_BYTES:
            error = Malformed(f"the header has {size} bytes, the most is {MAX_HEADER_BYTES}")
            return self._refuse(caller, b"", frame, size, error)
        header = frame.bytes
        frames: list[Any] = []
        while frame.more:
            frame = receive(0, False)
            size += len(frame)
            if len(frames) == MAX_BODY_FRAMES:
                error = Malformed(f"the message has more than {MAX_TENSORS} tensor frames")
                return self._refuse(caller, header, frame, size, error)
            if size > self.max_request_bytes:
                text = f"the message has more than {self.max_request_bytes} bytes"
                return self._refuse(caller, header, frame, size, TooLarge(text))
            frames.append(frame)
        return caller, header, frames, size, None

    def _refuse(self, caller: Caller, header: bytes, frame: Any, size: int, error: TrtdError) -> Received:
        """Give up a message after one of its frames."""
        self._is_skipping = frame.more
        return caller, header, [], size, error

    def _learn(self, peer: bytes, frame: Any) -> Caller:
        # An id that the client chose passes on to the next connection that chooses it.
        is_named = peer[0] != NAMED_BY_LIBZMQ
        route = Route(self.port, peer)
        caller = Caller(route, frame.get("User-Id"), frame.get("Peer-Address"), is_named=is_named)
        caller.is_req = frame.get("Socket-Type") == "REQ"
        if not is_named:
            if len(self._callers) >= MAX_KNOWN:
                self._callers.clear()
            self._callers[peer] = caller
        return caller

    def _skip(self) -> int:
        for count in range(1, MAX_FRAMES_SKIPPED + 1):
            if not self.port.receive(0, False).more:
                self._is_skipping = False
                return count
        return MAX_FRAMES_SKIPPED


AnySource = Source | LocalSource


def _guard(source: AnySource) -> LocalPort | TcpGate:
    """Who knows of a socket's connections."""
    return source.port if isinstance(source, LocalSource) else source.gate


def _close(source: AnySource) -> None:
    if isinstance(source, Source):
        source.gate.close()
    source.port.close(LINGER_S)


class Parked(NamedTuple):
    """An answer whose client did not read in time to take it at once."""

    frames: Sequence[Any]
    size: int
    expires_at: float


class Endpoint:
    """All sockets of one tenant.

    An answer that libzmq does not take, because its client reads too slowly, is parked and tried again for a while.
    What one tenant may have parked is bounded. An answer that is given up is counted.

    Args:
        context: of the process.
        settings: as the supervisor told them.
        socket_mode: permission bits of its socket file.
        used: see `Port`.
        late: where it adds itself while it has parked answers.
        bundling: where it adds itself while it has answers that leave together.
        arenas: the shared memory of its clients.
        reception: what all unix endpoints share.

    Attributes:
        tenant: whose.
        arenas: as given.
        settings: as the supervisor told them last.
        sources: the sockets that listen, by address.
        problems: why addresses do not listen, by address.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: TenantEndpoint,
        socket_mode: int,
        used: set[Port],
        late: set[Endpoint],
        bundling: set[Endpoint],
        arenas: TenantArenas,
        reception: Reception,
    ) -> None:
        self.tenant = TenantName(settings.tenant)
        self.arenas = arenas
        self.settings = settings
        self.sources: dict[str, AnySource] = {}
        self._given_up = 0
        self._unread = Unread()
        self.problems: dict[str, str] = {}
        self._refused_before = 0
        self._context = context
        self._reception = reception
        self._used = used
        self._late = late
        self._bundling = bundling
        self._bundles: dict[Route, list[Sequence[Any]]] = {}
        self._socket_mode = socket_mode
        self._parked: dict[Route, deque[Parked]] = {}
        self._parked_count = 0
        self._parked_bytes = 0

    @property
    def undeliverable(self) -> int:
        """Answers whose client was gone, or did not read for too long."""
        return self._given_up + self._unread.given_up

    @property
    def has_parked(self) -> bool:
        """Whether an answer waits for its client."""
        return bool(self._parked)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return sum(len(_guard(source)) for source in self.sources.values())

    @property
    def connections_refused(self) -> int:
        """How many connections were sent away."""
        return self._refused_before + sum(_guard(source).refused for source in self.sources.values())

    @property
    def unreachable(self) -> str:
        """Why nobody can connect at one of its addresses; empty while everybody can."""
        lost = [_guard(source).problem for source in self.sources.values()]
        missing = [self.problems.get(address, "") for address in self.missing]
        return next((problem for problem in (*lost, *missing) if problem), "")

    @property
    def missing(self) -> list[str]:
        """Addresses that ought to listen and do not."""
        wanted = [self.settings.address, self.settings.tcp_address]
        return [address for address in wanted if address is not None and address not in self.sources]

    def stale_sources(self, settings: TenantEndpoint) -> list[AnySource]:
        """The sockets that new settings close, because another address or another limit needs another socket."""
        if settings.max_request_bytes != self.settings.max_request_bytes:
            return list(self.sources.values())
        wanted = {settings.address, settings.tcp_address}
        return [source for address, source in self.sources.items() if address not in wanted]

    def look_after(self, now: float) -> None:
        """What has to be done about once a second."""
        self.arenas.look_after()
        for source in self.sources.values():
            if isinstance(source, LocalSource):
                source.port.look_after(now)
            else:
                source.gate.look_after()
                source.port.look_after()

    def configure(self, settings: TenantEndpoint) -> None:
        """Obey new settings; what is `missing` afterwards has to be opened."""
        for source in self.stale_sources(settings):
            del self.sources[source.port.address]
            self._refused_before += _guard(source).refused
            _close(source)
        self.settings = settings
        self.arenas.configure(settings)

    def bind(self, address: str, curve_secret_key_file: str | None, listener_fd: int | None = None) -> AnySource:
        """Listen at one of the `missing` addresses, with a socket that listens there already if there is one.

        Raises:
            OSError, zmq.ZMQError: the address cannot be had.
            InvalidConfig: the address or the secret key cannot be used.
        """
        max_request_bytes = self.settings.max_request_bytes
        max_frame_bytes = FRAME_HEADROOM * max_request_bytes + MAX_HEADER_BYTES
        is_remote = address == self.settings.tcp_address
        if not is_remote:
            local = LocalPort(
                self._reception, self.tenant, max_frame_bytes, max_request_bytes, MAX_CONNECTIONS, self._unread
            )
            try:
                local.bind(address, self._socket_mode, listener_fd)
            except BaseException:
                local.close()
                raise
            return self.sources.setdefault(address, LocalSource(self, local))
        options = PortOptions(
            zap_domain=self.tenant,
            max_frame_bytes=max_frame_bytes,
            curve_secret_key=read_secret_key(curve_secret_key_file) if is_remote else None,
        )
        port = Port(self._context, options, self._used)
        try:
            port.bind(address, listener_fd)
        except BaseException:
            port.close()
            raise
        gate = TcpGate(self._reception, self.tenant, port.monitor(), port.set_listening)
        return self.sources.setdefault(address, Source(self, port, max_request_bytes, gate))

    def deliver(self, route: Route, frames: Sequence[Any], now: float) -> None:
        """Send an answer, or park it where its client does not read; one to a bundle waits for `send_bundles`."""
        port, peer, takes_bundles = route
        if takes_bundles:
            self._bundles.setdefault(route, []).append(frames)
            self._bundling.add(self)
        elif self._parked:
            self._send(route, frames, (frames,), now)
        else:
            try:
                port.send(peer, frames)
            except Undelivered as problem:
                self._keep(route, (frames,), problem, now)
            if self._unread.bytes > self.settings.limits.max_bytes:
                self._make_room()

    def send_bundles(self, now: float) -> None:
        """Send what waits to leave together. A lone answer leaves as it is, and so does a large one."""
        bundles, self._bundles = self._bundles, {}
        for route, answers in bundles.items():
            for message, together in pack_bundles(answers):
                self._send(route, message, together, now)

    def _send(self, route: Route, message: Sequence[Any], answers: Sequence[Sequence[Any]], now: float) -> None:
        """Send one message; where its client does not read, the answers in it are parked one by one."""
        try:
            if route in self._parked:
                raise Undelivered(is_full=True)
            route.port.send(route.peer, message, len(answers))
        except Undelivered as problem:
            self._keep(route, answers, problem, now)
        if self._unread.bytes > self.settings.limits.max_bytes:
            self._make_room()

    def has_room(self, size_bytes: int, begun_bytes: int) -> bool:
        """Whether an answer of this size may be taken from a worker now, while so much of others is being taken.

        One that has more than half of what may be unread waits until there is nothing else.
        """
        return size_bytes <= self.settings.limits.max_bytes // 2 or not (self._unread.bytes or begun_bytes)

    def _make_room(self) -> None:
        """Give up answers that nobody reads, until those that are kept are within their bound again."""
        most = self.settings.limits.max_bytes
        ports = [source.port for source in self.sources.values() if isinstance(source, LocalSource)]
        owners = {guest: port for port in ports for guest in port.guests()}
        while (loser := choose_loser(owners, self._unread.bytes, most)) is not None:
            port = owners.pop(loser)
            port.give_up(loser)
            for takes_bundles in (False, True):
                self._forget_parked(Route(port, loser, takes_bundles))

    def _parked_of(self, route: Route) -> tuple[int, int]:
        """How much waits for a client, in bytes and answers."""
        waiting = self._parked[route]
        return sum(answer.size for answer in waiting), len(waiting)

    def _forget_parked(self, route: Route) -> None:
        """Give up what waits for a client."""
        waiting = self._parked.pop(route, None)
        if waiting is None:
            return
        self._given_up += len(waiting)
        self._parked_count -= len(waiting)
        self._parked_bytes -= sum(answer.size for answer in waiting)
        if not self._parked:
            self._late.discard(self)

    def _keep(self, route: Route, answers: Sequence[Sequence[Any]], problem: Undelivered, now: float) -> None:
        for frames in answers:
            if problem.is_full:
                self._park(route, frames, now)
            else:
                self._given_up += 1

    def _park(self, route: Route, frames: Sequence[Any], now: float) -> None:
        size = sum(map(len, frames))
        most = self.settings.limits.max_bytes
        while self._parked and (self._parked_count >= MAX_PARKED or self._parked_bytes + size > most):
            # Who has most of it loses it first.
            self._forget_parked(max(self._parked, key=self._parked_of))
        if size > most:
            self._given_up += 1
            return
        # What a worker said is a part of all that was read with it, which must not be kept for one slow reader.
        own = [bytes(frame) if len(frame) < SMALL_FRAME_BYTES else frame for frame in frames]
        self._parked.setdefault(route, deque()).append(Parked(own, size, now + PARKED_S))
        self._parked_count += 1
        self._parked_bytes += size
        self._late.add(self)

    def retry_parked(self, now: float) -> int:
        """Try parked answers again, and give up those that waited for too long; how many are parked no more."""
        before = self._parked_count
        for route in list(islice(self._parked, MAX_RETRIED)):
            waiting = self._parked.pop(route)
            while waiting:
                try:
                    route.port.send(route.peer, waiting[0].frames)
                except Undelivered as problem:
                    if problem.is_full and now < waiting[0].expires_at:
                        # Back, behind the other slow readers.
                        self._parked[route] = waiting
                        break
                    self._given_up += 1
                self._parked_count -= 1
                self._parked_bytes -= waiting.popleft().size
        if not self._parked:
            self._late.discard(self)
        return before - self._parked_count

    def close(self) -> None:
        """Close all sockets. Answers that libzmq holds still leave; parked ones are given up."""
        for route in list(self._parked):
            self._forget_parked(route)
        self._late.discard(self)
        for source in self.sources.values():
            _close(source)
        self.sources.clear()
        self.arenas.close()
