"""The endpoint for workers: which connection speaks for which worker, requests out, results in.

A worker is known to the router when two words agree: the supervisor's (`WorkerAdmitted`: this life, this pid) and its
own (`Attach`, on a connection whose pid the kernel checked). Either may come first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import zmq

from trtd.core.ids import TenantName, WorkerId
from trtd.core.requests import Dispatch, Result
from trtd.errors import ErrorCode, Malformed
from trtd.router.access import WORKERS_DOMAIN
from trtd.router.sockets import WAIT_NOT, Port, PortOptions, Undelivered
from trtd.wire.batches import MAX_ATTACH_BYTES, decode_worker_items, encode_batch_items
from trtd.wire.messages import Attach, ModelDescription

MAX_RESULT_FRAME_BYTES = 1 << 30
MAX_CLAIMS = 4096
"""Attachments remembered of workers that the supervisor has not named (yet)."""
MAX_FORMER = 1024
"""Connections remembered of workers whose life is over: what still comes from them is no reason to complain."""
SOCKET_MODE = 0o600


class Claim(NamedTuple):
    """Who a process says it is: the life of a worker, and the pid that the kernel knows."""

    worker: WorkerId
    pid: int


@dataclass(frozen=True, slots=True)
class Attachment:
    """One connection of a worker.

    Attributes:
        claim: who it says it is.
        peer: the connection.
        models: what it serves.
    """

    claim: Claim
    peer: bytes
    models: tuple[ModelDescription, ...]


class Arrived(NamedTuple):
    """What a worker's message meant: it is ready for work (again), or it answered."""

    worker: WorkerId
    has_attached: bool
    results: Sequence[Result]


class Workers:
    """All connections of workers. The decisions about work are the dispatcher's."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, used: set[Port]) -> None:
        # What is out is bounded by the dispatcher (TenantLimits.max_outstanding), so libzmq needs no bound of its own.
        self.port = Port(context, PortOptions(WORKERS_DOMAIN, MAX_RESULT_FRAME_BYTES, queued_out=0), used)
        self.port.bind(address, SOCKET_MODE)
        self._pids: dict[WorkerId, int] = {}
        self._claims: OrderedDict[Claim, Attachment] = OrderedDict()
        self._speakers: dict[tuple[bytes, str], WorkerId] = {}
        self._former: deque[tuple[bytes, str]] = deque(maxlen=MAX_FORMER)
        self._attached: dict[WorkerId, Attachment] = {}
        self._models: dict[TenantName, tuple[ModelDescription, ...]] = {}

    def has_any(self, tenant: TenantName) -> bool:
        """Whether a worker of the tenant can be reached."""
        return any(worker.tenant == tenant for worker in self._attached)

    def models(self, tenant: TenantName) -> tuple[ModelDescription, ...]:
        """What the tenant's worker that came last serves; also while there is none at the moment."""
        return self._models.get(tenant, ())

    def admit(self, worker: WorkerId, pid: int) -> bool:
        """The supervisor named a worker; True when it has attached already."""
        self._pids[worker] = pid
        attachment = self._claims.pop(Claim(worker, pid), None)
        if attachment is None:
            return worker in self._attached
        self._join(attachment)
        return True

    def forget(self, worker: WorkerId) -> None:
        """This life of the worker is over."""
        self._pids.pop(worker, None)
        self.detach(worker)
        for claim in [claim for claim in self._claims if claim.worker == worker]:
            del self._claims[claim]

    def forget_tenant(self, tenant: TenantName) -> None:
        """The tenant is gone for good."""
        for worker in [worker for worker in self._pids if worker.tenant == tenant]:
            self.forget(worker)
        self._models.pop(tenant, None)

    def detach(self, worker: WorkerId) -> None:
        """The worker's connection is gone; it may come back with another one."""
        attachment = self._attached.pop(worker, None)
        if attachment is not None:
            speaker = (attachment.peer, f"pid:{attachment.claim.pid}")
            self._speakers.pop(speaker, None)
            self._former.append(speaker)

    def read(self) -> Arrived | None:
        """The next message that concerns the dispatcher; None when none waits.

        Raises:
            Malformed: the message is no message of a worker, or not of one that may send it. It was read off.
        """
        receive = self.port.receive
        while True:
            try:
                peer = receive(WAIT_NOT)
            except zmq.Again:
                return None
            frame = receive(0, False)
            header = frame
            frames: list[Any] = []
            while frame.more:
                frame = receive(0, False)
                frames.append(frame)
            if len(header) > MAX_ATTACH_BYTES:
                raise Malformed(f"a worker's header has {len(header)} bytes")
            speaker: str = header.get("User-Id")
            message = decode_worker_items(header.bytes)
            if isinstance(message, tuple):
                generation, items = message
                worker = self._speakers.get((peer, speaker))
                if worker is None and (peer, speaker) in self._former:
                    continue
                if worker is None or worker.generation != generation:
                    raise Malformed(f"results of generation {generation} from a stranger ({speaker})")
                return Arrived(worker, False, split_results(items, frames))
            worker = self._hear(message, peer, int(speaker.removeprefix("pid:")))
            if worker is not None:
                return Arrived(worker, True, ())

    def _hear(self, message: Attach, peer: bytes, pid: int) -> WorkerId | None:
        """Note an attachment; the worker where the supervisor has named it already."""
        worker = WorkerId(TenantName(message.tenant), message.replica, message.generation)
        attachment = Attachment(Claim(worker, pid), peer, message.models)
        if self._pids.get(worker) == pid:
            self.detach(worker)
            self._join(attachment)
            return worker
        self._claims[attachment.claim] = attachment
        if len(self._claims) > MAX_CLAIMS:
            self._claims.popitem(last=False)
        return None

    def _join(self, attachment: Attachment) -> None:
        worker, pid = attachment.claim
        self._attached[worker] = attachment
        self._speakers[attachment.peer, f"pid:{pid}"] = worker
        self._models[worker.tenant] = attachment.models

    def send(self, effect: Dispatch, now: float) -> None:
        """Hand requests to a worker.

        Raises:
            Undelivered: the worker's connection is gone.
        """
        attachment = self._attached.get(effect.worker)
        if attachment is None:
            raise Undelivered(is_full=False)
        alone = effect.must_run_alone
        flat: list[Any] = []
        frames: list[Any] = [b""]
        for lease, request in effect.requests:
            payload = request.payload
            queue_us = max(0, int((now - request.received_at) * 1e6))
            remaining_us = max(0, int((request.deadline - now) * 1e6))
            flat += (lease, len(payload), queue_us, remaining_us, alone)
            frames += payload
        frames[0] = encode_batch_items(effect.worker.generation, int(now * 1e6), flat)
        self.port.send(attachment.peer, frames)

    def close(self) -> None:
        """Close the socket."""
        self.port.close()


def split_results(items: tuple[Any, ...], frames: list[Any]) -> list[Result]:
    """Each answer with the frames that are its own.

    Args:
        items: lease, frame count and code of each answer, as `decode_worker_items` gives them.
        frames: of all answers.

    Raises:
        Malformed: the frames are more or fewer than the header says.
    """
    results = []
    start = 0
    each = iter(items)
    for lease, frame_count, code in zip(each, each, each, strict=True):
        end = start + frame_count
        results.append(Result(lease, ErrorCode(code) if code is not None else None, frames[start:end]))
        start = end
    if start != len(frames):
        raise Malformed(f"the results name {start} frames, the message has {len(frames)}")
    return results
