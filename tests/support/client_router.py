"""A router to test clients with: a real ROUTER socket whose every answer the test decides."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import zmq

from trtd.errors import ErrorCode
from trtd.wire import codec
from trtd.wire.messages import (
    ClientMessage,
    DescribeAnswer,
    ErrorAnswer,
    HealthAnswer,
    InferAnswer,
    InferRequest,
    ModelDescription,
    TensorSpec,
    Timing,
)

WAIT_S = 10.0


@dataclass(frozen=True)
class Received:
    """One message of a client."""

    route: bytes
    message: ClientMessage
    tensors: list[bytes]


class StandInRouter:
    """Listens at an address until it is closed. Used from one thread, or by `serve` from its own."""

    def __init__(self, address: str, *, zap_status: bytes | None = None) -> None:
        self._context = zmq.Context()
        self._zap: threading.Thread | None = None
        if zap_status is not None:
            ready = threading.Event()
            self._zap = threading.Thread(target=self._decide_access, args=(zap_status, ready), daemon=True)
            self._zap.start()
            assert ready.wait(WAIT_S)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 1000)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.set(zmq.SNDHWM, 0)
        if zap_status is not None:
            self._socket.set(zmq.ZAP_DOMAIN, b"a")
        self._socket.bind(address)
        self._is_closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.served = 0

    def receive(self, timeout_s: float = WAIT_S) -> Received:
        """The next message."""
        received = self.poll(timeout_s)
        assert received is not None, "no message came"
        return received

    def poll(self, timeout_s: float = 0.0) -> Received | None:
        """The next message, None when none comes in time."""
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        route, header, *tensors = self._socket.recv_multipart()
        return Received(route, codec.decode_client_message(header), tensors)

    def reply(self, to: Received, header: bytes, tensors: Sequence[Any] = ()) -> None:
        """Send raw frames."""
        self._socket.send_multipart([to.route, header, *tensors])

    def answer(self, to: Received, outputs: Sequence[tuple[TensorSpec, bytes]] | None = None) -> None:
        """Answer with these outputs; with its own inputs when none are given."""
        message = to.message
        assert isinstance(message, InferRequest)
        pairs = list(zip(message.inputs, to.tensors, strict=True)) if outputs is None else list(outputs)
        answer = InferAnswer(
            message.id, message.model, message.version or "1", 7, tuple(spec for spec, _ in pairs), Timing(10, 20, 30)
        )
        self.reply(to, codec.encode_router_message(answer), [frame for _, frame in pairs])

    def refuse(self, to: Received, code: ErrorCode, message: str, retry_after_s: float | None = None) -> None:
        """Answer with a typed error."""
        self.reply(to, codec.encode_router_message(ErrorAnswer(to.message.id, code, message, retry_after_s)))

    def describe(self, to: Received, models: tuple[ModelDescription, ...]) -> None:
        """Answer with descriptions."""
        header = codec.encode_router_message(DescribeAnswer(to.message.id, models))
        self.reply(to, header, [codec.encode_models(models)])

    def tell_health(self, to: Received, state: str) -> None:
        """Answer with a state."""
        answer = HealthAnswer(to.message.id, state == "ready", state, "" if state == "ready" else "why", (1,), "0.1.0")
        self.reply(to, codec.encode_router_message(answer))

    def serve(self, handler: Callable[[Received], None]) -> None:
        """Hand every message to the handler, in a thread, until closed."""

        def loop() -> None:
            while not self._is_closing.is_set():
                received = self.poll(0.05)
                if received is not None:
                    self.served += 1
                    handler(received)

        self._thread = threading.Thread(target=loop, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; repeatable."""
        if self._context.closed:
            return
        self._is_closing.set()
        if self._thread is not None:
            self._thread.join()
        self._socket.close()
        if self._zap is not None:
            self._stop_zap.set()
            self._zap.join()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decide_access(self, status: bytes, ready: threading.Event) -> None:
        self._stop_zap = threading.Event()
        socket = self._context.socket(zmq.REP)
        socket.set(zmq.LINGER, 0)
        socket.bind("inproc://zeromq.zap.01")
        ready.set()
        while not self._stop_zap.is_set():
            if socket.poll(20):
                request = socket.recv_multipart()
                socket.send_multipart([b"1.0", request[1], status, b"", b"someone", b""])
        socket.close()
