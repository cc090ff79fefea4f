"""Names of things, as distinct types: what a message is about and which life of a worker it comes from."""

from __future__ import annotations

from typing import NamedTuple, NewType

TenantName = NewType("TenantName", str)
RequestId = NewType("RequestId", bytes)
"""16 bytes, chosen by the client and unique among its requests; a resend carries the same id."""
LeaseId = NewType("LeaseId", int)
"""The router's number for one request handed to one worker. Unique over the restarts of the router."""

REQUEST_ID_BYTES = 16


class WorkerKey(NamedTuple):
    """A worker's place in the fleet; it outlives the processes that fill it."""

    tenant: TenantName
    replica: int

    def __str__(self) -> str:
        return f"{self.tenant}/{self.replica}"


class WorkerId(NamedTuple):
    """One life of a worker. The generation grows with each spawn and stamps every message."""

    tenant: TenantName
    replica: int
    generation: int

    @property
    def key(self) -> WorkerKey:
        """The place that this life fills."""
        return WorkerKey(self.tenant, self.replica)

    def __str__(self) -> str:
        return f"{self.tenant}/{self.replica}#{self.generation}"
