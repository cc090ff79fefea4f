"""A router to test clients with: a real ROUTER socket whose every answer the test decides."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import zmq

from tests.support.client_arenas import StandInArenas
from tests.support.wire import pack_bundle
from trtd.errors import ErrorCode
from trtd.wire import codec
from trtd.wire.addresses import arenas_path_beside
from trtd.wire.arenas import PLACE_ALIGNMENT_BYTES, ArenaRef, decode_ref, encode_ref
from trtd.wire.bundles import BUNDLE_HEADER, unpack_bundle
from trtd.wire.messages import (
    ClientMessage,
    DescribeAnswer,
    ErrorAnswer,
    HealthAnswer,
    InferAnswer,
    InferRequest,
    ModelDescription,
    Place,
    TensorSpec,
    Timing,
)

WAIT_S = 10.0
SMALLEST_PLACED_BYTES = 16 * 1024
"""Smaller outputs are never written into an area."""


@dataclass(frozen=True)
class Received:
    """One message of a client. `area` is the reference of an infer request that has one."""

    route: bytes
    message: ClientMessage
    tensors: list[bytes]
    area: ArenaRef | None = None
    is_bundled: bool = False

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Of an infer request."""
        assert isinstance(self.message, InferRequest)
        return self.message.inputs

    @property
    def places(self) -> list[str]:
        """Where its inputs are, and `area` where there is one."""
        return [spec.place.value for spec in self.inputs] + (["area"] if self.area else [])


class StandInRouter:
    """Listens at an address until it is closed. Used from one thread, or by `serve` from its own."""

    def __init__(self, address: str, *, zap_status: bytes | None = None) -> None:
        self._address = address
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
        self.arenas: StandInArenas | None = None
        self._unpacked: deque[Received] = deque()

    def receive(self, timeout_s: float = WAIT_S) -> Received:
        """The next message."""
        received = self.poll(timeout_s)
        assert received is not None, "no message came"
        return received

    def poll(self, timeout_s: float = 0.0) -> Received | None:
        """The next message, None when none comes in time."""
        if not self._unpacked:
            if not self._socket.poll(int(timeout_s * 1000)):
                return None
            route, header, *tensors = self._socket.recv_multipart()
            if header != BUNDLE_HEADER:
                return self._received(route, [header, *tensors], is_bundled=False)
            for frames in unpack_bundle(tensors[0]):
                self._unpacked.append(self._received(route, [bytes(frame) for frame in frames], is_bundled=True))
        return self._unpacked.popleft()

    def _received(self, route: bytes, frames: list[bytes], *, is_bundled: bool) -> Received:
        message = codec.decode_client_message(frames[0])
        tensors = frames[1:]
        has_area = isinstance(message, InferRequest) and message.has_area
        area = decode_ref(tensors.pop()) if has_area else None
        return Received(route, message, tensors, area, is_bundled)

    def reply(self, to: Received, header: bytes, tensors: Sequence[Any] = ()) -> None:
        """Send raw frames."""
        self._socket.send_multipart([to.route, header, *tensors])

    def answer(self, to: Received, outputs: Sequence[tuple[TensorSpec, bytes]] | None = None) -> None:
        """Answer with these outputs; with its own inputs when none are given, where its places are known here."""
        if self._knows_places_of(to):
            self.reply(to, *self.frames_of_answer(to, outputs))
        else:
            self.refuse(to, ErrorCode.ARENA_UNKNOWN, "no such arena")

    def _knows_places_of(self, to: Received) -> bool:
        assert isinstance(to.message, InferRequest)
        pairs = zip(to.inputs, to.tensors, strict=True)
        keys = {decode_ref(frame).key for spec, frame in pairs if spec.place is Place.ARENA}
        if to.area is not None:
            keys.add(to.area.key)
        return not keys or (self.arenas is not None and keys <= set(self.arenas.taken))

    def answer_together(self, requests: Sequence[Received]) -> None:
        """Answer all of one client with their own inputs, in one bundle."""
        messages = []
        for to in requests:
            header, tensors = self.frames_of_answer(to)
            messages.append([header, *tensors])
        self.reply(requests[0], BUNDLE_HEADER, [pack_bundle(messages)])

    def frames_of_answer(
        self, to: Received, outputs: Sequence[tuple[TensorSpec, bytes]] | None = None
    ) -> tuple[bytes, list[bytes]]:
        """The header and the tensor frames of an answer; large outputs are written into the area that the request has.

        Outputs whose spec says arena are taken for references as they are.
        """
        message = to.message
        assert isinstance(message, InferRequest)
        pairs = self._echo(to) if outputs is None else list(outputs)
        answer = InferAnswer(
            message.id, message.model, message.version or "1", 7, tuple(spec for spec, _ in pairs), Timing(10, 20, 30)
        )
        return codec.encode_router_message(answer), [frame for _, frame in pairs]

    def _echo(self, to: Received) -> list[tuple[TensorSpec, bytes]]:
        pairs = []
        at = to.area.offset if to.area is not None else 0
        for spec, frame in zip(to.inputs, to.tensors, strict=True):
            data = frame
            if spec.place is Place.ARENA:
                assert self.arenas is not None
                data = self.arenas.read(decode_ref(frame))
            place = Place.FRAME
            if to.area is not None and len(data) >= SMALLEST_PLACED_BYTES:
                assert self.arenas is not None
                ref = ArenaRef(to.area.key, at, len(data))
                self.arenas.write(ref, data)
                at += len(data) + -len(data) % PLACE_ALIGNMENT_BYTES
                data, place = encode_ref(ref), Place.ARENA
            pairs.append((TensorSpec(spec.name, spec.dtype, spec.shape, place), data))
        return pairs

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

    def take_arenas(self, max_arena_bytes: int = 2**30, *, has_bundles: bool = False) -> StandInArenas:
        """Listen for offers of arenas beside the endpoint, which has to be an ipc one."""
        path = arenas_path_beside(self._address)
        assert path is not None
        self.arenas = StandInArenas(path, max_arena_bytes, has_bundles=has_bundles)
        return self.arenas

    def serve(self, handler: Callable[[Received], None]) -> None:
        """Hand every message to the handler, in a thread, until closed."""

        def loop() -> None:
            while not self._is_closing.is_set():
                received = self.poll(0.05)
                if received is not None:
                    self.served += 1
                    try:
                        handler(received)
                    except zmq.ZMQError as error:
                        # The client went away before it had its answer.
                        if error.errno != zmq.EHOSTUNREACH:
                            raise

        self._thread = threading.Thread(target=loop, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; repeatable."""
        if self._context.closed:
            return
        self._is_closing.set()
        if self._thread is not None:
            self._thread.join()
        if self.arenas is not None:
            self.arenas.close()
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
