"""Who may connect to a real router: users on ipc, keys on tcp, and what happens when a list changes."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from tests.support.batches import ResultEntry
from tests.support.router import PATIENCE_S, RouterClient, make_endpoint
from tests.support.streams import StreamEnd
from tests.support.users import NOBODY, only_root
from trtd.core.dispatch import TenantLimits
from trtd.errors import ErrorCode
from trtd.wire import control
from trtd.wire.messages import ErrorAnswer, InferAnswer
from trtd.wire.settings import CurveClient

MIB = 1 << 20
HANDSHAKE = """
import os, sys, zmq, zmq.utils.monitor
address, uid = sys.argv[1], int(sys.argv[2])
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
context = zmq.Context()
socket = context.socket(zmq.DEALER)
events = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
socket.connect(address)
print(zmq.utils.monitor.recv_monitor_message(events)["event"].name)
context.destroy(linger=0)
"""


def handshake(address: str, uid: int) -> str:
    """What a client of another user sees of its handshake."""
    return subprocess.run(
        [sys.executable, "-c", HANDSHAKE, address, str(uid)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    ).stdout.strip()


HANG_UP = """
import os, socket, sys
path, uid = sys.argv[1], int(sys.argv[2])
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
with socket.socket(socket.AF_UNIX) as end:
    end.connect(path)
    end.settimeout(10)
    print(end.recv(1) == b"")
"""


def hang_up(path: Path, uid: int) -> bool:
    """Whether the workers' socket closes the connection of another user."""
    told = subprocess.run(
        [sys.executable, "-c", HANG_UP, str(path), str(uid)],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=True,
    )
    return told.stdout.strip() == "True"


def is_hung_up(end: StreamEnd) -> bool:
    """Whether the far side has closed the connection by the time it would have."""
    poll = select.poll()
    poll.register(end.stream, select.POLLRDHUP)
    return bool(poll.poll(200))


@only_root
def test_a_user_who_is_not_on_the_list_is_refused(bench, public_directory):
    """The kernel's word on the peer decides: not listed, listed by user, by group, or everyone."""
    allowed = {"nobody": {}, "user": {"allow_uids": (NOBODY,)}, "group": {"allow_gids": (NOBODY,)}}
    allowed["all"] = {"allow_everyone": True}
    seen = {}
    for name, fields in allowed.items():
        endpoint = make_endpoint(public_directory, name, **fields)
        bench.router.open_tenant(endpoint)
        bench.router.wait_until(lambda name=name: (public_directory / f"{name}.sock").exists())
        seen[name] = handshake(endpoint.address, NOBODY)
    accepted = "HANDSHAKE_SUCCEEDED"
    assert seen == {"nobody": "HANDSHAKE_FAILED_AUTH", "user": accepted, "group": accepted, "all": accepted}


@only_root
def test_only_the_daemons_user_may_be_a_worker(bench, public_directory):
    """The workers' socket hangs up on other users even where its file would let them in."""
    path = public_directory / "workers.sock"
    bench.start(workers_path=str(path))
    path.chmod(0o666)
    assert hang_up(path, NOBODY)
    ours = StreamEnd.connect(str(path))
    assert not is_hung_up(ours)
    ours.close()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_socket_has_its_mode(bench, mode):
    """A tenant's socket file has the configured permission bits, the workers' is for the daemon alone."""
    bench.start(socket_mode=mode, workers_path=f"{bench.directory}/r2/workers.sock")
    bench.tenant("moded")
    path = bench.directory / "moded.sock"
    bench.router.wait_until(path.exists)
    assert path.stat().st_mode & 0o777 == mode
    assert (bench.directory / "r2" / "workers.sock").stat().st_mode & 0o777 == 0o600


class Curve:
    """A router with a tcp endpoint, and keys."""

    def __init__(self, bench, directory: Path) -> None:
        self.bench = bench
        self.public, secret = zmq.curve_keypair()
        self.key_file = directory / "secret.key"
        self.key_file.touch(mode=0o600)
        self.key_file.write_bytes(secret)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"

    def client(self, keys: tuple[bytes, bytes], **options: object) -> RouterClient:
        public, secret = keys
        return self.bench.connect(
            self.address, curve_publickey=public, curve_secretkey=secret, curve_serverkey=self.public, **options
        )


@pytest.fixture
def curve(bench, tmp_path) -> Curve:
    return Curve(bench, tmp_path)


def test_a_key_decides_on_tcp(bench, curve):
    """A listed key is served over tcp, another one or none is refused, and ipc goes on beside it."""
    listed, other = zmq.curve_keypair(), zmq.curve_keypair()
    bench.start(curve_secret_key_file=str(curve.key_file))
    bench.tenant(tcp_address=curve.address, curve_clients=(CurveClient("ann", listed[0].decode()),))
    worker = bench.worker()
    known, unknown, bare = curve.client(listed), curve.client(other), bench.connect(curve.address)
    local = bench.client()
    for client in (unknown, bare, known, local):
        client.ask()
    worker.serve(2)
    assert isinstance(known.receive()[0], InferAnswer)
    assert isinstance(local.receive()[0], InferAnswer)
    assert not unknown.has_answer(0.2)
    assert not bare.has_answer(0.2)


def test_a_req_socket_over_tcp_is_told_what_to_use(bench, curve):
    """Likewise where libzmq reads for the router."""
    keys = zmq.curve_keypair()
    bench.start(curve_secret_key_file=str(curve.key_file))
    bench.tenant(tcp_address=curve.address, curve_clients=(CurveClient("ann", keys[0].decode()),))
    asker = curve.client(keys, kind=zmq.REQ)
    asker.ask()
    answer, _ = asker.receive()
    assert isinstance(answer, ErrorAnswer)
    assert "use a DEALER socket" in answer.message


def test_no_number_of_connections_over_tcp_takes_what_others_need(bench, curve):
    """An address gets its share and no more, before any handshake; the router lives, and serves others meanwhile."""
    keys = zmq.curve_keypair()
    bench.start(nofile=300, curve_secret_key_file=str(curve.key_file))
    bench.tenant(tcp_address=curve.address, curve_clients=(CurveClient("ann", keys[0].decode()),))
    bench.tenant("b")
    worker, local = bench.worker("b"), bench.client("b")
    host, port = curve.address.removeprefix("tcp://").split(":")
    local.ask()
    worker.serve(1)
    assert isinstance(local.receive()[0], InferAnswer)
    flood = []
    try:
        for _ in range(8):
            for _ in range(50):
                # The loopback has many addresses.
                with contextlib.suppress(OSError):
                    flood.append(socket.create_connection((host, int(port)), 0.5, (f"127.0.0.{1 + len(flood) % 9}", 0)))
            local.ask()
            worker.serve(1)
            assert isinstance(local.receive()[0], InferAnswer)
            late = bench.client("b")
            late.send(b"\xc1")
            assert isinstance(late.receive()[0], ErrorAnswer)
            late.close()
        bench.router.stats("a", lambda it: it.connections_refused >= 20)
    finally:
        for sock in flood:
            sock.close()
    bench.router.stats("a", lambda it: it.connections == 0)
    known = curve.client(keys)
    known.ask()
    bench.worker().serve(1)
    assert isinstance(known.receive()[0], InferAnswer)
    assert bench.router.process.poll() is None


def test_a_key_that_is_taken_off_the_list_is_refused_at_once(bench, curve):
    """A change of the list also counts for connections that were made before."""
    keys = zmq.curve_keypair()
    ann = CurveClient("ann", keys[0].decode())
    bench.start(curve_secret_key_file=str(curve.key_file))
    bench.tenant(tcp_address=curve.address, curve_clients=(ann,))
    worker = bench.worker()
    client = curve.client(keys)
    client.ask()
    worker.serve(1)
    assert isinstance(client.receive()[0], InferAnswer)
    bench.tenant(tcp_address=curve.address, curve_clients=())
    bench.router.tell(control.AskUnfinished("a"))
    bench.router.expect(control.Unfinished)
    client.ask()
    answer, _ = client.receive()
    assert isinstance(answer, ErrorAnswer)
    assert answer.code == ErrorCode.NOT_ALLOWED


def test_a_key_file_that_others_may_read_opens_no_port(bench, curve):
    """Without a secret key that is secret there is no tcp endpoint; ipc is not affected."""
    curve.key_file.chmod(0o644)
    keys = zmq.curve_keypair()
    bench.start(curve_secret_key_file=str(curve.key_file))
    bench.tenant(tcp_address=curve.address, curve_clients=(CurveClient("ann", keys[0].decode()),))
    local = bench.client()
    local.ask()
    worker = bench.worker()
    worker.serve(1)
    assert isinstance(local.receive()[0], InferAnswer)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(curve.address.rpartition(":")[2])), timeout=PATIENCE_S)
    curve.key_file.chmod(0o600)
    remote = curve.client(keys)
    remote.ask()
    worker.serve(1)
    assert isinstance(remote.receive()[0], InferAnswer)


def test_an_owner_cannot_take_over_the_request_of_another(bench, curve):
    """The id of another owner's request is no way to its answer."""
    keys = zmq.curve_keypair()
    bench.start(curve_secret_key_file=str(curve.key_file))
    bench.tenant(tcp_address=curve.address, curve_clients=(CurveClient("ann", keys[0].decode()),))
    worker = bench.worker()
    victim, thief = bench.client(), curve.client(keys)
    request_id = victim.ask(b"secret")
    batch, requests = worker.receive()
    thief.ask(id=request_id, is_resent=True)
    refused, _ = thief.receive()
    assert isinstance(refused, ErrorAnswer)
    worker.answer(batch, requests)
    assert victim.receive()[1] == [b"secret"]
    assert not thief.has_answer(0.2)


def test_large_answers_over_tcp_come_whole_and_are_bounded(bench, curve):
    """Who reads gets every byte; one that does not read holds few large answers, and the others are given up."""
    keys = zmq.curve_keypair()
    bench.start(curve_secret_key_file=str(curve.key_file))
    bench.tenant(
        tcp_address=curve.address,
        curve_clients=(CurveClient("ann", keys[0].decode()),),
        limits=TenantLimits(max_bytes=64 * MIB),
    )
    worker, reader, sleeper = bench.worker(), curve.client(keys), curve.client(keys, rcvhwm=1)
    payload = random.Random(0).randbytes(20 * MIB)

    def serve() -> None:
        batch, ((header, *_),) = worker.receive()
        (answer, *_) = worker.echo([header])
        worker.send_results([ResultEntry(batch.entries[0].lease, 2)], [answer, payload])

    for _ in range(16):
        sleeper.ask()
        serve()
    reader.ask()
    serve()
    assert reader.receive()[1] == [payload]
    assert bench.router.stats("a", lambda it: it.answered == 17).undeliverable >= 4
