"""Who asks: a client's connection, and what it asks again and again."""

from __future__ import annotations

from typing import Any, NamedTuple

from trtd.core.admission import allowed_timeout_s
from trtd.core.ids import TenantName
from trtd.wire.memo import AFTER_ID, BEFORE_ID
from trtd.wire.messages import InferRequest
from trtd.wire.settings import TenantEndpoint


class Route(NamedTuple):
    """Where an answer goes: one connection of one socket.

    Attributes:
        port: the endpoint's socket, of ZeroMQ or of our own.
        peer: the connection, as that names it.
        takes_bundles: whether the question came in a bundle, so that the answer may leave in one.
    """

    port: Any
    peer: Any
    takes_bundles: bool = False


class Caller:
    """What does not change while a connection lasts, and what it asked last.

    Attributes:
        route: where its answers go.
        owner: name that the access check gave the connection.
        address: of the peer, as libzmq says it: of a local process what the kernel knows of it.
        is_named: whether it wants a name of its own choice, which no connection may have.
        is_req: whether it is a REQ socket, which hands on nothing that does not begin with an empty frame.
        habit: what it asked last, where the next request is likely to be the same; None without such.
    """

    __slots__ = ("_in_bundles", "address", "habit", "is_named", "is_req", "owner", "route")

    def __init__(self, route: Route, owner: str, address: str, *, is_named: bool = False) -> None:
        self.route = route
        self.owner = owner
        self.address = address
        self.is_named = is_named
        self.is_req = False
        self.habit: Habit | None = None
        self._in_bundles: Caller | None = None

    @property
    def in_bundles(self) -> Caller:
        """The same connection for what comes in its bundles."""
        if self._in_bundles is None:
            route = self.route._replace(takes_bundles=True)
            self._in_bundles = Caller(route, self.owner, self.address, is_named=self.is_named)
        return self._in_bundles


class Habit:
    """A request without places in shared memory that was taken, so that the next one like it needs no second look.

    Attributes:
        before_id: its header up to the id.
        after_id: its header behind the id.
        frame_sizes: of its tensors.
        settings: of the endpoint when it was taken. New ones may shorten the list of those who are admitted, or what
            they may ask for, and end the habit.
        tenant: whose endpoint.
        priority: of the request.
        timeout_s: in force for it, within the tenant's bounds.
        model: that it asks for.
        is_resent: whether it says so.
    """

    __slots__ = (
        "after_id",
        "before_id",
        "frame_sizes",
        "is_resent",
        "model",
        "priority",
        "settings",
        "tenant",
        "timeout_s",
    )

    def __init__(self, header: bytes, frame_sizes: list[int], settings: TenantEndpoint, message: InferRequest) -> None:
        self.before_id = header[BEFORE_ID]
        self.after_id = header[AFTER_ID]
        self.frame_sizes = frame_sizes
        self.settings = settings
        self.tenant = TenantName(settings.tenant)
        self.priority = message.priority
        self.timeout_s = allowed_timeout_s(settings.limits, message.timeout_s)
        self.model = message.model
        self.is_resent = message.is_resent
