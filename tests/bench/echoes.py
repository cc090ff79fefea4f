"""The bare echoes that trtd is compared with, and the daemon that it is compared by, each in processes of its own.

`shared_sockets` is the load of the shared one; those of the others are in `tests.bench.loads`.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from tests.bench.loads import INPUT, MODEL, Listener, Measurement, Span, make_payload, warm_s_of
from tests.support.daemon import Daemon, wait_until
from trtd.client import Client
from trtd.demo.models import identity
from trtd.wire.messages import Dtype

PLACES = struct.Struct("<QQ")
"""Size of a place and how many there are: the message that brings the memfd."""
PLACE = struct.Struct("<Q")
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Echoes:
    """Where to find them.

    Attributes:
        bare: address of the two-hop echo.
        shared: path of the socket of the echo over shared memory.
        trtd: address of a tenant with an identity.
    """

    bare: str
    shared: str
    trtd: str


@contextlib.contextmanager
def running() -> Iterator[Echoes]:
    """All of them, and the end of all of them."""
    with (
        tempfile.TemporaryDirectory(prefix="trtd-bench-") as name,
        bare_echo(Path(name)) as bare,
        shared_echo(Path(name)) as shared,
        trtd_echo(Path(name)) as daemon,
    ):
        yield Echoes(bare, shared, daemon.address())


def echo(address: str) -> None:
    """The bare server: sends back what it gets."""
    dealer = zmq.Context().socket(zmq.DEALER)
    dealer.connect(address)
    while True:
        dealer.send_multipart(dealer.recv_multipart(copy=False), copy=False)


def proxy(front: str, back: str) -> None:
    """The bare router: libzmq's own C loop."""
    context = zmq.Context()
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    router.bind(front)
    dealer.bind(back)
    zmq.proxy(router, dealer)


@contextlib.contextmanager
def _processes(*targets: tuple[Callable[..., None], tuple[str, ...]]) -> Iterator[None]:
    processes = [SPAWN.Process(target=target, args=args) for target, args in targets]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


@contextlib.contextmanager
def bare_echo(directory: Path) -> Iterator[str]:
    """A proxy process and an echo process."""
    front, back = f"ipc://{directory}/front", f"ipc://{directory}/back"
    with _processes((proxy, (front, back)), (echo, (back,))):
        yield front


@contextlib.contextmanager
def shared_echo(directory: Path) -> Iterator[str]:
    """A process that copies inputs to answers in the memory of its client: what remains when all else is left out."""
    path = str(directory / "shared")
    with _processes((copy_for_ever, (path,))):
        wait_until(Path(path).exists, "the shared echo")
        yield path


@contextlib.contextmanager
def trtd_echo(directory: Path, tree: Path | None = None) -> Iterator[Daemon]:
    """A daemon with one tenant that serves an identity of float32 rows; of another checkout where one is named."""
    model = directory / "identity.onnx"
    model.write_bytes(identity(Dtype.FLOAT32, (None,)))
    # The second lets `python -m` find trtd there and not in the working directory.
    environ = {} if tree is None else {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    # All of a small machine is in use, so that Python may be silent for longer than usual.
    tenant = {"models": {MODEL: {"path": str(model)}}, "health": {"beat_s": 10.0}}
    with Daemon({"a": tenant}, router={"health": {"beat_s": 10.0}}) as daemon:
        daemon.start(**environ)
        daemon.wait_ready(60.0)
        with Client(daemon.address()) as client:
            client.infer(MODEL, {INPUT: np.ones((1, 4), np.float32)}, timeout=60)
        yield daemon
        daemon.stop()


def copy_for_ever(path: str) -> None:
    """Serve one client after the other: each brings its memory, and then names places in it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(ConnectionError):
                data, fds, _, _ = socket.recv_fds(client, PLACES.size, 1)
                inputs, answers = _map(fds[0], *PLACES.unpack(data))
                os.close(fds[0])
                while data := client.recv(PLACE.size):
                    (place,) = PLACE.unpack(data)
                    np.copyto(answers[place], inputs[place])
                    client.send(data)


def shared_sockets(path: str, size: int, in_flight: int, seconds: float, listener: Listener) -> Measurement:
    """Places in one memory, one request in each; each is filled anew before it is named."""
    payload = make_payload(size).view(np.uint8)[0]
    fd = os.memfd_create("bench")
    os.ftruncate(fd, 2 * in_flight * size)
    inputs, answers = _map(fd, size, in_flight)
    started = [0.0] * in_flight
    latencies: list[float] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(path)
        socket.send_fds(server, [PLACES.pack(size, in_flight)], [fd])
        os.close(fd)

        def send(place: int) -> None:
            started[place] = time.perf_counter()
            np.copyto(inputs[place], payload)
            server.send(PLACE.pack(place))

        for place in range(in_flight):
            send(place)
        span = Span(seconds, listener, warm_s_of(in_flight * size))
        while not span.is_over(len(latencies)):
            (place,) = PLACE.unpack(server.recv(PLACE.size))
            if answers[place][-1] != payload[-1]:
                raise SystemExit("the shared echo gave something else back")
            if span.is_warm:
                latencies.append(time.perf_counter() - started[place])
            send(place)
        return span.end(latencies, len(latencies))


def _map(fd: int, size: int, count: int) -> tuple[Any, Any]:
    """Inputs and answers, by place."""
    memory = np.frombuffer(mmap.mmap(fd, 2 * size * count), np.uint8).reshape(2, count, size)
    return memory[0], memory[1]
