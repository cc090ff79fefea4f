"""A real router process, with the test as its supervisor, its clients and its workers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import zmq

from tests.support.batches import Batch, ResultEntry, Results, decode_batch, encode_worker_message
from tests.support.streams import StreamEnd
from trtd.child.channel import Channel, ChannelClosed
from trtd.core.dispatch import TenantLimits
from trtd.core.ids import LeaseId, RequestId, TenantName, WorkerId
from trtd.wire import codec, control
from trtd.wire.batches import decode_arena_message
from trtd.wire.messages import (
    ArenaClosed,
    ArenaOpened,
    Attach,
    Dtype,
    InferAnswer,
    InferRequest,
    ModelDescription,
    RouterMessage,
    TensorContract,
    TensorSpec,
    Timing,
)
from trtd.wire.settings import RouterSettings, TenantEndpoint

PATIENCE_S = 10.0
MODEL = ModelDescription(
    "m",
    "1",
    (TensorContract("x", Dtype.UINT8, (None,)),),
    (TensorContract("y", Dtype.UINT8, (None,)),),
    is_batched=False,
    max_batch=0,
)

M = TypeVar("M")


def make_endpoint(directory: Path, tenant: str = "a", **fields: Any) -> TenantEndpoint:
    """A tenant that only this user may use."""
    defaults: dict[str, Any] = {
        "tenant": tenant,
        "limits": TenantLimits(),
        "address": f"ipc://{directory}/{tenant}.sock",
        "allow_uids": (),
        "allow_gids": (),
        "tcp_address": None,
        "curve_clients": (),
        "max_request_bytes": 1024 * 1024,
        "arenas_path": f"{directory}/{tenant}.arenas",
        "max_arena_bytes": 64 * 1024 * 1024,
    }
    return TenantEndpoint(**{**defaults, **fields})


def make_router_settings(directory: Path, **fields: Any) -> RouterSettings:
    """Settings of a router whose sockets are in this directory."""
    defaults: dict[str, Any] = {
        "generation": 1,
        "workers_path": f"{directory}/router/workers.sock",
        "beat_every_s": 0.05,
        "memory_limit_bytes": 0,
        "curve_secret_key_file": None,
        "socket_mode": 0o666,
        "log_format": "json",
        "log_level": "info",
    }
    return RouterSettings(**{**defaults, **fields})


def anything(_: object) -> bool:
    """The condition that everything satisfies."""
    return True


class RouterProcess:
    """A router, and the supervisor's end of its channel."""

    def __init__(self, settings: RouterSettings, nofile: int | None = None) -> None:
        self.settings = settings
        limit = [] if nofile is None else ["/bin/sh", "-c", f'ulimit -n {nofile}; exec "$@"', "sh"]
        self.channel, theirs = Channel.pair()
        memfd = os.memfd_create("settings")
        os.write(memfd, control.encode_settings(settings))
        os.lseek(memfd, 0, os.SEEK_SET)
        self.process = subprocess.Popen(
            [
                *limit,
                *(sys.executable, "-m", "trtd.router.main", "--parent", str(os.getpid())),
                *("--channel", str(theirs.fileno()), "--settings", str(memfd)),
            ],
            pass_fds=(theirs.fileno(), memfd, *([settings.flight_fd] if settings.flight_fd >= 0 else [])),
        )
        os.close(memfd)
        theirs.close()
        self._unread: list[Any] = []

    def tell(self, *messages: control.SupervisorMessage) -> None:
        for message in messages:
            assert self.channel.send(message)

    def open_tenant(self, endpoint: TenantEndpoint) -> None:
        """Configure a tenant and open its gate."""
        self.tell(
            control.TenantConfigured(endpoint),
            control.AvailabilitySet(endpoint.tenant, True, "", None),
            control.GateSet(endpoint.tenant, True, 1),
        )

    def tell_patiently(self, message: control.SupervisorMessage) -> None:
        """Send as soon as the router reads."""
        self.wait_until(lambda: self.channel.send(message))

    def expect(
        self,
        kind: type[M],
        where: Callable[[Any], bool] = anything,
        timeout_s: float = PATIENCE_S,
        seen: Callable[[Any], object] = anything,
    ) -> M:
        """The next message of a kind that satisfies a condition; others are shown to `seen` and kept for later."""
        for index, message in enumerate(self._unread):
            if isinstance(message, kind) and where(message):
                del self._unread[index]
                return message
        for message in self._receive(timeout_s):
            if isinstance(message, kind) and where(message):
                return message
            seen(message)
            self._unread.append(message)
        raise AssertionError(f"no {kind.__name__} within {timeout_s} s")

    def stats(self, tenant: str, where: Callable[[Any], bool] = anything) -> control.TenantStats:
        """The first numbers of a tenant that satisfy a condition, none older than those that were asked for before."""

        def concerns(message: Any) -> bool:
            return isinstance(message, control.RouterStats) and message.stats.tenant == tenant

        while True:
            # One after the other: what is passed over is no longer true, and must not be found by the next condition.
            message = self.expect(control.RouterStats, concerns)
            if where(message.stats):
                return message.stats

    def socket_count(self) -> int:
        """Open sockets of the router: each connection is one."""
        return sum(name.startswith("socket:") for name in self.fds())

    def fds(self) -> list[str]:
        """What each open descriptor of the router is."""
        found = []
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(str(link.readlink()))
        return found

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        """Wait for something that the router does without saying so."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s"
            time.sleep(0.01)

    def _receive(self, timeout_s: float) -> Iterator[Any]:
        poller = zmq.Poller()
        poller.register(self.channel.fileno(), zmq.POLLIN)
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if poller.poll(left * 1000):
                message = self.channel.receive(wait=False)
                if message is not None:
                    yield message

    def wait_exit(self, timeout_s: float = PATIENCE_S) -> int:
        return self.process.wait(timeout_s)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()


class RouterClient:
    """A client in plain ZeroMQ."""

    def __init__(self, context: zmq.Context[Any], address: str, kind: int = zmq.DEALER, **options: Any) -> None:
        self.socket = context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 1)
        for name, value in options.items():
            setattr(self.socket, name, value)
        self.socket.connect(address)

    def ask(self, payload: bytes = b"payload", **fields: Any) -> RequestId:
        """Send one request for the model `m` with one tensor of bytes; its id."""
        request_id = RequestId(fields.pop("id", None) or uuid.uuid4().bytes)
        spec = TensorSpec("x", Dtype.UINT8, (len(payload),))
        request = InferRequest(request_id, "m", None, (spec,), **fields)
        self.socket.send_multipart([codec.encode_client_message(request), payload])
        return request_id

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def receive(self, timeout_s: float = PATIENCE_S) -> tuple[RouterMessage, list[bytes]]:
        """The next answer and its frames."""
        assert self.socket.poll(timeout_s * 1000), f"no answer within {timeout_s} s"
        header, *frames = self.socket.recv_multipart()
        return codec.decode_router_message(header, frames), frames

    def has_answer(self, timeout_s: float) -> bool:
        return bool(self.socket.poll(timeout_s * 1000))

    def close(self) -> None:
        self.socket.close()


class StandInWorker:
    """A worker that gives each tensor back as it came. Its pid is the test's own."""

    def __init__(self, settings: RouterSettings, tenant: str = "a", generation: int = 1, replica: int = 0) -> None:
        self.id = WorkerId(TenantName(tenant), replica, generation)
        self.arenas: dict[int, int] = {}
        """Descriptors that came, by key; closed with their arena."""
        self._path = settings.workers_path
        self.end = StreamEnd.connect(self._path, takes_fds=True)

    def reconnect(self) -> None:
        """Connect to the next router."""
        self.end.close()
        self.end = StreamEnd.connect(self._path, takes_fds=True)

    @property
    def admitted(self) -> control.WorkerAdmitted:
        return control.WorkerAdmitted(*self.id, pid=os.getpid())

    def attach(self, models: Sequence[ModelDescription] = (MODEL,)) -> None:
        self.end.send([encode_worker_message(Attach(*self.id, models=tuple(models)))])

    def receive(self, timeout_s: float = PATIENCE_S) -> tuple[Batch, list[list[bytes]]]:
        """The next batch, and the frames of each of its requests."""
        header, *frames = self.end.receive(timeout_s, "batch")
        while not frames:
            self.hear_of_arena(header)
            header, *frames = self.end.receive(timeout_s, "batch")
        batch = decode_batch(header)
        requests = []
        for entry in batch.entries:
            requests.append(frames[: entry.frame_count])
            del frames[: entry.frame_count]
        assert not frames
        return batch, requests

    def hear_of_arena(self, header: bytes | None = None) -> ArenaOpened | ArenaClosed:
        """Take in a message about an arena, the next one unless given."""
        message = decode_arena_message(header or self.end.receive(what="word of an arena")[0])
        assert message is not None
        if isinstance(message, ArenaOpened):
            self.arenas[message.key] = self.end.stream.fds.popleft()
        else:
            os.close(self.arenas.pop(message.key))
        return message

    def has_work(self, timeout_s: float) -> bool:
        return self.end.poll(timeout_s)

    def answer(self, batch: Batch, requests: Sequence[Sequence[bytes]]) -> None:
        """Give the tensors of a batch back."""
        entries, frames = [], []
        for entry, request in zip(batch.entries, requests, strict=True):
            entries.append(ResultEntry(entry.lease, len(request)))
            frames += self.echo(request)
        self.send_results(entries, frames)

    def echo(self, request: Sequence[bytes]) -> list[bytes]:
        header, *tensors = request
        asked = codec.decode_client_message(header)
        assert isinstance(asked, InferRequest)
        answer = InferAnswer(asked.id, asked.model, "1", self.id.generation, asked.inputs, Timing(1, 2, 3))
        return [codec.encode_router_message(answer), *tensors]

    def send_results(
        self, entries: Sequence[ResultEntry], frames: Sequence[bytes], generation: int | None = None
    ) -> None:
        header = encode_worker_message(Results(generation or self.id.generation, tuple(entries)))
        self.end.send([header, *frames])

    def serve(self, count: int) -> list[LeaseId]:
        """Answer so many requests; their leases."""
        leases: list[LeaseId] = []
        while len(leases) < count:
            batch, requests = self.receive()
            self.answer(batch, requests)
            leases += [entry.lease for entry in batch.entries]
        return leases

    def close(self) -> None:
        self.end.close()
        while self.arenas:
            os.close(self.arenas.popitem()[1])


def is_closed(channel: Channel) -> bool:
    """Whether the other end of a channel is closed."""
    try:
        while channel.receive(wait=False) is not None:
            pass
    except ChannelClosed:
        return True
    return False
