"""Loads for trtd and for the bare echoes: closed loops and windows over sockets, and the client library.

Needs nothing of `tests`, so that it also runs as a program of its own against the trtd of another checkout:

    PYTHONPATH=CHECKOUT python tests/bench/loads.py LOAD ADDRESS SIZE_BYTES IN_FLIGHT SECONDS

It prints `go` when it is warm, then one line of JSON, and stays until its standard input ends, so that the processor
time of its threads can be read.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import zmq

from trtd.client import Client
from trtd.client.answers import AnswerReader
from trtd.client.calls import Form
from trtd.core.ids import RequestId
from trtd.wire.messages import UNKNOWN_REQUEST_ID, Dtype, InferAnswer, InferRequest, TensorSpec

MODEL, INPUT, OUTPUT = "identity", "x", "y"
ZERO_COPY_BYTES = 262_144
"""From this size on sockets send without a copy, to trtd and to the bare echo alike, as the client library does."""
WARM_S = 0.3
FIRST_TOUCH_BYTES_PER_S = 200e6
"""Memory that is used for the first time is slow: pages have to be found for it, and mapped on each side."""
TIMED_EACH = 16
"""Of the answers to a pipelining client one in so many is looked at: a look at each would be part of the figure."""
FEWEST_TIMED = 5
PATIENCE_S = 60.0

Arrays = dict[str, np.ndarray[Any, Any]]
Load = Callable[[str, int, int, float, "Listener"], "Measurement"]
"""Takes address, size in bytes, requests in flight, seconds, and whom to tell."""


class Listener:
    """Is told of a run while all its threads are there; this one makes nothing of it."""

    def warm(self) -> None:
        """Measuring begins."""

    def done(self, measurement: Measurement) -> None:
        """It is over."""


@dataclass(frozen=True)
class Measurement:
    """One run: requests per second, how many in all, and quantiles of the time from sending to the answer."""

    per_s: float
    count: int
    p50_us: float
    p99_us: float


def measurement(latencies: list[float], count: int, seconds: float) -> Measurement:
    """Of so many requests in this time, some of them timed."""
    latencies.sort()
    return Measurement(
        count / seconds, count, latencies[len(latencies) // 2] * 1e6, latencies[int(len(latencies) * 0.99)] * 1e6
    )


class Span:
    """The time of one run: some to get warm, then the seconds that are measured.

    Attributes:
        is_warm: whether what happens now is measured.
        began_at: instant at which measuring began, by `time.perf_counter`.
    """

    def __init__(self, seconds: float, listener: Listener, warm_s: float = WARM_S) -> None:
        self.is_warm = False
        self.began_at = time.perf_counter() + warm_s
        self._seconds = seconds
        self._listener = listener

    def is_over(self, timed: int) -> bool:
        """Whether to stop now; not before some requests have been timed. To be asked again and again."""
        now = time.perf_counter()
        if not self.is_warm and now > self.began_at:
            self.is_warm, self.began_at = True, now
            self._listener.warm()
        return now > self.began_at + self._seconds and timed >= FEWEST_TIMED

    def end(self, latencies: list[float], count: int) -> Measurement:
        """So many requests since `began_at`, some of them timed."""
        done = measurement(latencies, count, time.perf_counter() - self.began_at)
        self._listener.done(done)
        return done


def warm_s_of(shared_bytes: int) -> float:
    """How long it takes to get warm with so much shared memory in each direction."""
    return WARM_S + shared_bytes / FIRST_TOUCH_BYTES_PER_S


def make_payload(size: int) -> np.ndarray[Any, Any]:
    """A row of float32 with so many bytes."""
    return np.random.default_rng(0).random((1, size // 4), np.float32)


def bare_sockets(address: str, size: int, in_flight: int, seconds: float, listener: Listener) -> Measurement:
    """Sockets with one request each, to a bare echo."""
    return _closed_loop(address, size, in_flight, seconds, listener, is_trtd=False)


def trtd_sockets(address: str, size: int, in_flight: int, seconds: float, listener: Listener) -> Measurement:
    """Sockets with one request each, to trtd; headers are made and read as the library does it, and ids compared."""
    return _closed_loop(address, size, in_flight, seconds, listener, is_trtd=True)


def _closed_loop(
    address: str, size: int, in_flight: int, seconds: float, listener: Listener, *, is_trtd: bool
) -> Measurement:
    context = zmq.Context()
    poller = zmq.Poller()
    started: dict[zmq.Socket[bytes], tuple[float, bytes]] = {}
    payload = make_payload(size)
    frame = memoryview(payload).cast("B")
    form = Form(InferRequest(UNKNOWN_REQUEST_ID, MODEL, None, (TensorSpec(INPUT, Dtype.FLOAT32, payload.shape),)))
    reader = AnswerReader()
    count = 0

    def send(socket: zmq.Socket[bytes]) -> None:
        nonlocal count
        count += 1
        request_id = RequestId(count.to_bytes(16, "big"))
        began = time.perf_counter()
        header = form.header(request_id) if is_trtd else b"header"
        started[socket] = (began, request_id)
        socket.send_multipart([header, frame], copy=size < ZERO_COPY_BYTES)

    for _ in range(in_flight):
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(address)
        poller.register(socket, zmq.POLLIN)
        started[socket] = (0.0, b"")
    latencies: list[float] = []
    for socket in list(started):
        send(socket)
    span = Span(seconds, listener)
    while not span.is_over(len(latencies)):
        for socket, _ in poller.poll():
            frames = socket.recv_multipart(copy=False)
            if is_trtd:
                request_id, message, _, _ = reader.read(frames)
                if not isinstance(message, InferAnswer) or request_id != started[socket][1]:
                    raise SystemExit(f"not the answer: {message}")
            _check_size(len(frames[1]), size)
            if span.is_warm:
                latencies.append(time.perf_counter() - started[socket][0])
            send(socket)
    done = span.end(latencies, len(latencies))
    context.destroy(linger=0)
    return done


def bare_pipelined(address: str, size: int, in_flight: int, seconds: float, listener: Listener) -> Measurement:
    """One socket with a window of requests, to a bare echo, which keeps their order."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(address)
    frame = memoryview(make_payload(size)).cast("B")
    sent_at: deque[float] = deque()
    latencies: list[float] = []
    count = 0
    span = Span(seconds, listener)
    while not span.is_over(len(latencies)):
        while len(sent_at) < in_flight:
            sent_at.append(time.perf_counter())
            socket.send_multipart([b"header", frame], copy=size < ZERO_COPY_BYTES)
        flags = 0
        while sent_at:
            try:
                frames = socket.recv_multipart(flags, copy=False)
            except zmq.Again:
                break
            _check_size(len(frames[1]), size)
            flags = zmq.NOBLOCK
            began = sent_at.popleft()
            if span.is_warm:
                count += 1
                if count % TIMED_EACH == 1:
                    latencies.append(time.perf_counter() - began)
    done = span.end(latencies, count)
    context.destroy(linger=0)
    return done


def trtd_pipelined(address: str, size: int, in_flight: int, seconds: float, listener: Listener) -> Measurement:
    """The client library with a window of requests."""
    payload = make_payload(size)
    with Client(address, timeout=PATIENCE_S) as client:
        _ask_for(WARM_S, client, size, in_flight, lambda _: {INPUT: payload})
        listener.warm()
        done = _ask_for(seconds, client, size, in_flight, lambda _: {INPUT: payload})
        listener.done(done)
        return done


def trtd_arenas(address: str, size: int, in_flight: int, seconds: float, listener: Listener) -> Measurement:
    """The client library with as many arrays in shared memory, each filled anew before it is sent.

    In a checkout that has no shared memory for clients the arrays are ordinary ones.
    """
    payload = make_payload(size)
    with Client(address, timeout=PATIENCE_S) as client:
        empty = getattr(client, "empty", np.empty)
        arrays = [empty(payload.shape, np.float32) for _ in range(in_flight)]

        def fill(number: int) -> Arrays:
            array = arrays[number % in_flight]
            np.copyto(array, payload)
            return {INPUT: array}

        until = time.monotonic() + PATIENCE_S
        while empty is not np.empty and not lies_in_memfd(client.infer(MODEL, fill(0))[OUTPUT]):
            if time.monotonic() > until:
                raise SystemExit("no answer comes in shared memory")
        _ask_for(warm_s_of(in_flight * size), client, size, in_flight, fill)
        listener.warm()
        done = _ask_for(seconds, client, size, in_flight, fill)
        listener.done(done)
        return done


def _ask_for(seconds: float, client: Client, size: int, in_flight: int, fill: Callable[[int], Arrays]) -> Measurement:
    """Ask for so long; one request after the other where only one is in flight."""
    latencies: list[float] = []
    count = 0
    ask = _one_by_one if in_flight == 1 else _in_a_window
    began_at = time.perf_counter()
    for sent_at, answer in ask(client, in_flight, fill, began_at + seconds):
        count += 1
        if size > ZERO_COPY_BYTES or count % TIMED_EACH == 1:
            latencies.append(time.perf_counter() - sent_at)
            _check_size(answer[OUTPUT].nbytes, size)
    return measurement(latencies, count, time.perf_counter() - began_at)


def _one_by_one(client: Client, _: int, fill: Callable[[int], Arrays], ends_at: float) -> Iterator[tuple[float, Any]]:
    while (sent_at := time.perf_counter()) < ends_at:
        yield sent_at, client.infer(MODEL, fill(0))


def _in_a_window(
    client: Client, window: int, fill: Callable[[int], Arrays], ends_at: float
) -> Iterator[tuple[float, Any]]:
    sent_at: deque[float] = deque()

    def inputs() -> Iterator[Arrays]:
        number = 0
        while (now := time.perf_counter()) < ends_at:
            sent_at.append(now)
            yield fill(number)
            number += 1

    for answer in _answers(client, inputs(), window):
        yield sent_at.popleft(), answer


def _answers(client: Client, inputs: Iterator[Arrays], window: int) -> Iterator[Any]:
    """In the order of the inputs; by handles where the library has nothing better yet."""
    if hasattr(client, "infer_many"):
        yield from client.infer_many(MODEL, inputs, window=window)
        return
    handles: deque[Any] = deque()
    for one in inputs:
        handles.append(client.submit(MODEL, one))
        if len(handles) == window:
            yield handles.popleft().result()
    while handles:
        yield handles.popleft().result()


def lies_in_memfd(array: np.ndarray[Any, Any]) -> bool:
    """Whether the kernel says that the bytes of an array are shared memory."""
    address = array.ctypes.data
    with open("/proc/self/maps", encoding="utf-8") as maps:  # noqa: PTH123  # cheaper; the arrays are many
        for line in maps:
            if "/memfd:" in line:
                first, _, last = line.split(" ", 1)[0].partition("-")
                if int(first, 16) <= address < int(last, 16):
                    return True
    return False


def _check_size(got: int, size: int) -> None:
    if got != size:
        raise SystemExit(f"{got} bytes came back instead of {size}")


LOADS: dict[str, Load] = {
    "sockets": trtd_sockets,
    "pipelined": trtd_pipelined,
    "arenas": trtd_arenas,
}
"""Those for trtd, by the names that the program takes."""


class Printer(Listener):
    """Tells another process, and waits for it before the threads go."""

    def warm(self) -> None:
        """One word."""
        print("go", flush=True)

    def done(self, measurement: Measurement) -> None:
        """One line."""
        print(json.dumps(asdict(measurement)), flush=True)
        sys.stdin.read()


def main() -> None:
    """Run the load that the command line names."""
    name, address, size, in_flight, seconds = sys.argv[1:]
    LOADS[name](address, int(size), int(in_flight), float(seconds), Printer())


if __name__ == "__main__":
    main()
