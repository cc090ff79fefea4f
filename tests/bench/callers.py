"""Loads of many callers in one process, each of which waits for its answer: threads, and tasks of an event loop.

`bare_threads` is what threads cost in Python without trtd: a socket for each. trtd's share one client, as in a server
that hands each of its own requests to a thread or a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import zmq

import trtd.client.aio
from tests.bench.loads import INPUT, MODEL, PATIENCE_S, Listener, Measurement, Span, make_payload
from trtd.client import Client

TICK_S = 0.01

Ask = Callable[[], None]
"""Sends one request and waits for its answer."""


def bare_threads(address: str, size: int, in_flight: int, seconds: float, listener: Listener) -> Measurement:
    """Threads with a socket each, to a bare echo."""
    frame = memoryview(make_payload(size)).cast("B")
    with zmq.Context() as context:

        @contextlib.contextmanager
        def connected() -> Iterator[Ask]:
            with context.socket(zmq.DEALER) as socket:
                socket.linger = 0
                socket.connect(address)

                def ask() -> None:
                    socket.send_multipart([b"header", frame])
                    socket.recv_multipart(copy=False)

                yield ask

        return _in_threads(connected, in_flight, seconds, listener)


def trtd_threads(address: str, size: int, in_flight: int, seconds: float, listener: Listener) -> Measurement:
    """Threads that share one `trtd.Client`."""
    payload = make_payload(size)
    with Client(address, timeout=PATIENCE_S) as client:

        def ask() -> None:
            client.infer(MODEL, {INPUT: payload})

        return _in_threads(lambda: contextlib.nullcontext(ask), in_flight, seconds, listener)


def _in_threads(
    connected: Callable[[], AbstractContextManager[Ask]], in_flight: int, seconds: float, listener: Listener
) -> Measurement:
    span = Span(seconds, listener)
    is_over = False
    latencies: list[float] = []

    def call() -> None:
        with connected() as ask:
            while not is_over:
                began = time.perf_counter()
                ask()
                if span.is_warm:
                    latencies.append(time.perf_counter() - began)

    threads = [threading.Thread(target=call) for _ in range(in_flight)]
    for thread in threads:
        thread.start()
    while not span.is_over(len(latencies)):
        time.sleep(TICK_S)
    done = span.end(list(latencies), len(latencies))
    is_over = True
    for thread in threads:
        thread.join()
    return done


def trtd_tasks(address: str, size: int, in_flight: int, seconds: float, listener: Listener) -> Measurement:
    """Tasks that share one `trtd.client.aio.Client`."""
    return asyncio.run(_tasks(address, make_payload(size), in_flight, seconds, listener))


async def _tasks(address: str, payload: Any, in_flight: int, seconds: float, listener: Listener) -> Measurement:
    span = Span(seconds, listener)
    is_over = False
    latencies: list[float] = []
    async with trtd.client.aio.Client(address, timeout=PATIENCE_S) as client:

        async def call() -> None:
            while not is_over:
                began = time.perf_counter()
                await client.infer(MODEL, {INPUT: payload})
                if span.is_warm:
                    latencies.append(time.perf_counter() - began)

        tasks = [asyncio.create_task(call()) for _ in range(in_flight)]
        while not span.is_over(len(latencies)):
            await asyncio.sleep(TICK_S)
        done = span.end(list(latencies), len(latencies))
        is_over = True
        await asyncio.gather(*tasks)
        return done
