"""A hostile client of one tenant, while another tenant's requests go on being answered by the same router process."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import select
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zmq

import trtd
from tests.support import zmtp
from tests.support.batches import ResultEntry
from tests.support.router import PATIENCE_S, RouterClient, StandInWorker
from tests.support.strangers import Strangers, needs_root
from trtd.core.dispatch import TenantLimits
from trtd.errors import ErrorCode, Overloaded
from trtd.router.endpoints import MAX_CONNECTIONS
from trtd.router.reception import SHARE_OF_ONE_USER
from trtd.wire import codec
from trtd.wire.messages import (
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    UNKNOWN_REQUEST_ID,
    Dtype,
    ErrorAnswer,
    InferAnswer,
    InferRequest,
    TensorSpec,
)

LIMIT = 64 * 1024
NOISE = """
import contextlib, random, socket, sys
rng = random.Random(0)
for _ in range(50):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(sys.argv[1])
        # The router may have hung up in the middle of it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            raw.sendall(rng.randbytes(rng.randrange(1, 200)))
"""


class Witness:
    """A well-behaved tenant `b` whose requests run all the time, in a thread of its own."""

    def __init__(self, bench) -> None:
        bench.tenant("b")
        self.answered = 0
        self._wrong: list[object] = []
        self._pid = bench.router.process.pid
        self._is_over = threading.Event()
        self._router = bench.router
        self._worker: StandInWorker = bench.worker("b")
        self._client: RouterClient = bench.client("b")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.is_set():
            payload = uuid.uuid4().bytes
            try:
                request_id = self._client.ask(payload)
                self._worker.serve(1)
                answer, frames = self._client.receive()
            except AssertionError as error:
                self._wrong.append(error)
                return
            if not isinstance(answer, InferAnswer) or answer.id != request_id or frames != [payload]:
                self._wrong.append(answer)
            self.answered += 1

    def check(self, more: int = 20) -> None:
        """So many more requests are answered, all were answered right, and the router is the same process."""
        target = self.answered + more
        self._router.wait_until(lambda: self.answered >= target or bool(self._wrong))
        assert self._wrong == []
        assert self._router.process.poll() is None

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()


@pytest.fixture
def witness(bench) -> Iterator[Witness]:
    bench.tenant("a", max_request_bytes=LIMIT, limits=TenantLimits(max_requests=64))
    made = Witness(bench)
    made.check(1)
    yield made
    try:
        made.check()
    finally:
        made.close()


def fields(**changes: object) -> dict[str, object]:
    """The fields of a good request for one byte, and changes to them."""
    inputs = [["x", "uint8", [1], "frame"]]
    return {"v": 1, "type": "infer", "id": uuid.uuid4().bytes, "model": "m", "inputs": inputs, **changes}


BAD_HEADERS = {
    "empty": b"",
    "garbage": b"\xc1" * 100,
    "truncated": msgpack.packb(fields())[:-3],
    "trailing": msgpack.packb(fields()) + b"\x00",
    "deep": b"\x91" * 4000,
    "huge array": b"\xdd\xff\xff\xff\xff",
    "huge map": b"\xdf\xff\xff\xff\xff",
    "not a map": msgpack.packb([1, 2, 3]),
    "too long": msgpack.packb(fields(model="m" * MAX_HEADER_BYTES)),
    "string dtype": msgpack.packb(fields(inputs=[["x", "string", [1], "frame"]])),
    "unknown dtype": msgpack.packb(fields(inputs=[["x", "float7", [1], "frame"]])),
    "negative shape": msgpack.packb(fields(inputs=[["x", "uint8", [-1], "frame"]])),
    "nan shape": msgpack.packb(fields(inputs=[["x", "uint8", [float("nan")], "frame"]])),
    "huge shape": msgpack.packb(fields(inputs=[["x", "float64", [2**62, 2**62], "frame"]])),
    "nan timeout": msgpack.packb(fields(timeout_s=float("nan"))),
    "negative timeout": msgpack.packb(fields(timeout_s=-1.0)),
    "short id": msgpack.packb(fields(id=b"short")),
    "unknown key": msgpack.packb(fields(surprise=1)),
    "other version": msgpack.packb(fields(v=2)),
    "unknown type": msgpack.packb(fields(type="attach")),
    "other place": msgpack.packb(fields(inputs=[["x", "uint8", [1], "memory"]])),
}


def test_every_bad_header_is_answered_with_a_typed_error(bench, witness):
    """Whatever stands in a header, the client gets one typed error and can go on."""
    client = bench.client()
    worker = bench.worker()
    for name, header in BAD_HEADERS.items():
        client.send(header, b"x")
        answer, _ = client.receive()
        assert isinstance(answer, ErrorAnswer), name
        assert answer.code in {
            ErrorCode.MALFORMED,
            ErrorCode.UNSUPPORTED_DTYPE,
            ErrorCode.UNSUPPORTED_VERSION,
            ErrorCode.TOO_LARGE,
        }, name
        assert "\n" not in answer.message
        assert "Traceback" not in answer.message
    client.ask(b"x")
    worker.serve(1)
    assert isinstance(client.receive()[0], InferAnswer)


def test_an_error_names_the_request_where_its_id_can_be_read(bench, witness):
    """The id of a bad request comes back where it can be read, zeros otherwise."""
    client = bench.client()
    request_id = uuid.uuid4().bytes
    client.send(msgpack.packb(fields(id=request_id, surprise=1)), b"x")
    assert client.receive()[0].id == request_id
    client.send(b"\xc1")
    assert client.receive()[0].id == UNKNOWN_REQUEST_ID


@pytest.mark.parametrize("sizes", [[], [1, 1], [2], [0], [1] * (MAX_TENSORS + 5)])
def test_frames_that_the_header_does_not_name_are_refused(bench, witness, sizes):
    """Too few, too many, too short or too long tensor frames are a typed error, under the request's id."""
    client = bench.client()
    request_id = uuid.uuid4().bytes
    client.send(msgpack.packb(fields(id=request_id)), *(bytes(size) for size in sizes))
    answer, _ = client.receive()
    assert isinstance(answer, ErrorAnswer)
    assert (answer.id, answer.code) == (request_id, ErrorCode.MALFORMED)


@pytest.mark.parametrize("sizes", [[LIMIT + 1], [LIMIT // 4] * 5, [2 * LIMIT]])
def test_a_request_that_is_too_large_is_refused(bench, witness, sizes):
    """Beyond the limit on bytes, in one frame or in several, the answer is TOO_LARGE and the connection lives."""
    client = bench.client()
    request_id = uuid.uuid4().bytes
    specs = tuple(TensorSpec(f"x{i}", Dtype.UINT8, (size,)) for i, size in enumerate(sizes))
    client.send(codec.encode_client_message(InferRequest(request_id, "m", None, specs)), *map(bytes, sizes))
    answer, _ = client.receive()
    assert isinstance(answer, ErrorAnswer)
    assert (answer.id, answer.code) == (request_id, ErrorCode.TOO_LARGE)
    client.ask(b"x")
    bench.worker().serve(1)
    assert isinstance(client.receive()[0], InferAnswer)


def test_a_frame_far_beyond_the_limit_ends_the_connection(bench, witness):
    """A frame that claims far more than the limit is not waited for, whatever its size claims to be."""
    for size in (10 * LIMIT, 2**40, 2**63, 2**64 - 1):
        raw = zmtp.shake_hands(f"{bench.directory}/a.sock")
        raw.sendall(bytes([zmtp.LONG]) + size.to_bytes(8) + b"x" * 1000)
        assert zmtp.is_closed_by_peer(raw), size
        raw.close()
    client = bench.client()
    client.send(msgpack.packb(fields()), bytes(10 * LIMIT))
    assert not client.has_answer(0.5)


def test_a_message_of_very_many_frames_is_read_off(bench, witness):
    """100,000 empty frames in one message cost one typed error and hold nobody up."""
    client = bench.client()
    request_id = uuid.uuid4().bytes
    client.send(msgpack.packb(fields(id=request_id)), *([b""] * 100_000))
    answer, _ = client.receive()
    assert isinstance(answer, ErrorAnswer)
    assert (answer.id, answer.code) == (request_id, ErrorCode.MALFORMED)
    assert f"more than {MAX_TENSORS}" in answer.message
    witness.check()
    client.ask(b"x")
    bench.worker().serve(1)
    assert isinstance(client.receive()[0], InferAnswer)


def test_an_endless_message_harms_nobody(bench, witness):
    """A message that never ends is never handed on; its memory is freed with its connection."""
    raw = zmtp.shake_hands(f"{bench.directory}/a.sock")
    part = zmtp.frame(bytes(LIMIT), zmtp.MORE)
    for _ in range(200):
        raw.sendall(part)
    witness.check()
    raw.close()


def test_garbage_instead_of_zmtp(bench, witness):
    """Random bytes, before and after the greeting, end in closed connections and nothing else."""
    random_source = random.Random(20_26)
    path = f"{bench.directory}/a.sock"
    for attempt in range(300):
        raw = zmtp.connect(path)
        with contextlib.suppress(OSError):
            if attempt % 3 == 1:
                raw.sendall(zmtp.GREETING)
            elif attempt % 3 == 2:
                raw.sendall(zmtp.GREETING + zmtp.ready(random_source.randbytes(attempt % 256)))
            raw.sendall(random_source.randbytes(random_source.randrange(1, 2000)))
        raw.close()
    witness.check()


def test_many_idle_connections_are_closed(bench, witness):
    """Connections that never greet are closed after the handshake's time, and their descriptors are free again."""
    before = bench.router.socket_count()
    path = f"{bench.directory}/a.sock"
    idle = [zmtp.connect(path) for _ in range(500)]
    bench.router.wait_until(lambda: bench.router.socket_count() >= before + 500)
    witness.check()
    assert all(zmtp.is_closed_by_peer(raw) for raw in idle)
    bench.router.wait_until(lambda: bench.router.socket_count() <= before)
    for raw in idle:
        raw.close()


@pytest.mark.parametrize("socket_name", ["a.sock", "a.arenas", "router/workers.sock"])
def test_no_number_of_connections_ends_the_router(bench, socket_name):
    """A user who may connect opens far more connections than there are descriptors: others are served meanwhile."""
    bench.start(nofile=300)
    bench.tenant("a")
    witness = Witness(bench)
    bench.router.wait_until((bench.directory / socket_name).exists)
    kind = socket.SOCK_SEQPACKET if socket_name.endswith(".arenas") else socket.SOCK_STREAM
    try:
        with Strangers(bench.directory, socket_name, count=900, kind=kind, uid=os.getuid()) as guests:
            witness.check()
            assert guests.outcomes()["connected"] >= 300
            witness.check()
            newcomer = bench.client("b")
            newcomer.send(b"\xc1")
            assert isinstance(newcomer.receive()[0], ErrorAnswer)
        witness.check()
        # What they held is free again.
        client, worker = bench.client("a"), bench.worker("a")
        client.ask()
        worker.serve(1)
        assert isinstance(client.receive()[0], InferAnswer)
    finally:
        witness.close()


def test_a_tenant_has_a_bounded_number_of_connections(bench, witness):
    """One user gets no more than his share; those sent away are told so at once, and counted."""
    path = bench.directory / "a.sock"
    most = MAX_CONNECTIONS * SHARE_OF_ONE_USER[0] // SHARE_OF_ONE_USER[1]
    with Strangers(bench.directory, "a.sock", count=most + 50, uid=os.getuid()) as guests:
        assert guests.outcomes() == {"connected": most + 50}
        bench.router.stats("a", lambda it: it.connections_refused >= 50)
        late = zmtp.connect(str(path))
        words = b""
        while received := late.recv(4096):
            words += received
        assert words == zmtp.GREETING + zmtp.frame(b"\x05ERROR\x03300", zmtp.COMMAND)
        late.close()
        with trtd.Client(f"ipc://{path}") as client, pytest.raises(Overloaded, match="too many connections"):
            client.infer("m", {"x": np.zeros(1, np.uint8)}, timeout=PATIENCE_S)
    bench.router.stats("a", lambda it: it.connections == 0)


@needs_root
def test_strangers_are_sent_away_and_counted(bench, witness):
    """Who may not use a tenant is told so and closed at once, however often he comes; nothing of it stays."""
    bench.directory.chmod(0o755)
    before = bench.router.socket_count()
    with Strangers(bench.directory, "a.sock", mode="storm", count=2000) as strangers:
        assert strangers.outcomes() == {"connected": 2000}
        bench.router.stats("a", lambda it: it.connections_refused == 2000)
        witness.check()
        assert bench.router.socket_count() <= before


def test_a_flood_is_refused_and_the_other_tenant_served(bench, witness):
    """A client that floods its endpoint gets OVERLOADED beyond its bound; the other tenant goes on meanwhile."""
    client = bench.client(sndhwm=0, rcvhwm=0)
    count = 3000
    for _ in range(count):
        client.ask(b"x")
    witness.check(100)
    refused = [client.receive()[0] for _ in range(count - 64)]
    assert {answer.code for answer in refused} == {ErrorCode.OVERLOADED}
    bench.worker().serve(64)
    assert all(isinstance(client.receive()[0], InferAnswer) for _ in range(64))


def test_a_client_that_reads_nothing_harms_nobody(bench, witness):
    """Answers for a client that never reads are bounded, and others get theirs."""
    deaf = bench.context.socket(zmq.DEALER)
    deaf.linger = 0
    deaf.rcvhwm = 1
    deaf.connect(f"ipc://{bench.directory}/a.sock")
    for _ in range(3000):
        deaf.send_multipart([b"\xc1" * 3000])
    witness.check(50)
    other = bench.client()
    other.ask(b"x")
    bench.worker().serve(1)
    assert isinstance(other.receive()[0], InferAnswer)
    deaf.close()


def test_a_connection_cannot_name_itself(bench, witness):
    """A routing id that a client chose passes on to the next one who chooses it, with its answers: none is taken."""
    worker = bench.worker()
    client = bench.client(routing_id=b"me")
    request_id = client.ask(b"1")
    answer, _ = client.receive()
    assert isinstance(answer, ErrorAnswer)
    assert (answer.id, answer.code) == (request_id, ErrorCode.MALFORMED)
    assert not worker.has_work(0.2)


def test_a_req_socket_is_told_what_to_use(bench, witness):
    """Its empty frame is no header: the refusal begins with one too, or the socket would drop it and wait for ever."""
    asker = RouterClient(bench.context, f"ipc://{bench.directory}/a.sock", kind=zmq.REQ)
    try:
        for _ in range(3):
            asker.ask(b"1")
            answer, _ = asker.receive()
            assert isinstance(answer, ErrorAnswer)
            assert (answer.code, "use a DEALER socket" in answer.message) == (ErrorCode.MALFORMED, True)
    finally:
        asker.close()


def test_noise_at_the_workers_socket_ends_its_own_connection(bench, witness):
    """Connections that say nothing sensible are closed one by one, and workers connect as before."""
    # In a process of its own: the kernel names it to the router, and the workers' is this one.
    subprocess.run([sys.executable, "-c", NOISE, bench.router.settings.workers_path], check=True)
    worker, client = bench.worker(), bench.client()
    client.ask()
    worker.serve(1)
    assert isinstance(client.receive()[0], InferAnswer)


MIB = 1 << 20


@pytest.fixture
def crowded(bench) -> Iterator[Witness]:
    """A tenant `a` with the limits of the default configuration, and a witness beside it."""
    bench.tenant("a", max_request_bytes=64 * MIB, limits=TenantLimits())
    made = Witness(bench)
    made.check(1)
    yield made
    try:
        made.check()
    finally:
        made.close()


def rss_bytes(bench) -> int:
    pages = int(Path(f"/proc/{bench.router.process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def begin(raw: socket.socket, claimed_bytes: int) -> None:
    """Send a header and the first bytes of a frame that claims to be so long."""
    head = codec.encode_client_message(InferRequest(uuid.uuid4().bytes, "m", None, (), 60.0))
    raw.sendall(zmtp.frame(head, zmtp.MORE) + bytes([zmtp.LONG]) + claimed_bytes.to_bytes(8) + bytes(100_000))


def test_messages_that_only_claim_to_be_long_take_no_memory(bench, crowded):
    """Thirty connections that begin 60 MiB each and send no more cost little, and requests of others go on."""
    before = rss_bytes(bench)
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            begin(stack.enter_context(zmtp.shake_hands(f"{bench.directory}/a.sock")), 60 * MIB)
        crowded.check()
        assert rss_bytes(bench) - before < 64 * MIB
        client, worker = bench.client(), bench.worker()
        client.ask(bytes(10 * MIB))
        worker.serve(1)
        assert isinstance(client.receive()[0], InferAnswer)


def test_messages_that_are_never_ended_are_bounded_and_give_way(bench, crowded):
    """Connections that send all but the end of 60 MiB hold at most a few such messages, and whole ones come through."""
    before = rss_bytes(bench)
    with contextlib.ExitStack() as stack:
        raws = [stack.enter_context(zmtp.shake_hands(f"{bench.directory}/a.sock")) for _ in range(8)]
        for raw in raws:
            begin(raw, 60 * MIB)
            raw.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                for _ in range(59):
                    raw.sendall(bytes(MIB))
        assert rss_bytes(bench) - before < 3 * 64 * MIB
        crowded.check()
        client, worker = bench.client(), bench.worker()
        client.ask(bytes(10 * MIB))
        worker.serve(1)
        assert isinstance(client.receive()[0], InferAnswer)
        assert rss_bytes(bench) - before < 3 * 64 * MIB


def test_answers_that_nobody_reads_are_bounded_and_given_up_first(bench, crowded):
    """Sleepers lose their connections, the longest asleep first; who reads gets every answer, large ones too."""
    bench.tenant("a", max_request_bytes=64 * MIB, limits=TenantLimits(max_bytes=64 * MIB))
    before = rss_bytes(bench)
    worker, reader = bench.worker(), bench.client()
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            raw = stack.enter_context(zmtp.shake_hands(f"{bench.directory}/a.sock"))
            head = codec.encode_client_message(InferRequest(uuid.uuid4().bytes, "m", None, (), 60.0))
            raw.sendall(zmtp.frame(head))
            batch, ((header, *_),) = worker.receive()
            (answer,) = worker.echo([header])
            worker.send_results([ResultEntry(batch.entries[0].lease, 2)], [answer, bytes(20 * MIB)])
            reader.ask(bytes(8 * MIB))
            worker.serve(1)
            assert isinstance(reader.receive()[0], InferAnswer)
        crowded.check()
        assert rss_bytes(bench) - before < 160 * MIB
        assert bench.router.stats("a", lambda it: it.answered == 24).undeliverable >= 8


def test_very_large_answers_come_one_after_the_other(bench, crowded):
    """Where answers may be larger than half of what may be unread, the router takes the next one when one was read."""
    size = 40 * MIB
    bench.tenant("a", max_request_bytes=64 * MIB, limits=TenantLimits(max_bytes=64 * MIB))
    before = rss_bytes(bench)
    workers = [bench.worker(replica=replica) for replica in range(4)]
    clients = [zmtp.shake_hands(f"{bench.directory}/a.sock") for _ in workers]
    with contextlib.ExitStack() as stack:
        for raw in clients:
            stack.enter_context(raw)
            head = codec.encode_client_message(InferRequest(uuid.uuid4().bytes, "m", None, (), 60.0))
            raw.sendall(zmtp.frame(head))
        senders = []
        for worker in workers:
            batch, ((header, *_),) = worker.receive()
            (answer,) = worker.echo([header])
            results = [ResultEntry(batch.entries[0].lease, 2)], [answer, bytes(size)]
            senders.append(threading.Thread(target=worker.send_results, args=results))
            senders[-1].start()
        crowded.check()
        assert rss_bytes(bench) - before < 1.5 * size
        left = dict.fromkeys(clients, size)
        for raw in clients:
            raw.setblocking(False)
        while any(count > 0 for count in left.values()):
            ready, _, _ = select.select([raw for raw in clients if left[raw] > 0], (), (), 10)
            assert ready
            for raw in ready:
                left[raw] -= len(raw.recv(MIB))
            assert rss_bytes(bench) - before < 2.5 * size
        for sender in senders:
            sender.join()
    assert bench.router.stats("a", lambda it: it.answered == len(workers)).undeliverable == 0
