"""The router's end of a worker's connection, for tests: a real stream that leases requests and reads answers."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support.batches import Batch, BatchEntry, Results, decode_worker_message, encode_batch
from tests.support.memory import ClientMemory
from tests.support.streams import StreamEnd, StreamListener
from trtd.core.ids import LeaseId, RequestId
from trtd.wire.arenas import PLACE_ALIGNMENT_BYTES, decode_ref
from trtd.wire.batches import encode_arena_message
from trtd.wire.codec import decode_router_message, encode_client_message
from trtd.wire.messages import (
    ArenaClosed,
    ArenaOpened,
    Attach,
    ErrorAnswer,
    InferAnswer,
    InferRequest,
    Place,
    TensorSpec,
)
from trtd.wire.tensors import from_frame, spec_of, to_frame


@dataclass(frozen=True)
class Got:
    """One answer as it came from the worker; `code` as its entry says. An output in an arena is its `ArenaRef`."""

    lease: int
    code: str | None
    answer: InferAnswer | ErrorAnswer
    outputs: dict[str, Any]


@dataclass(frozen=True)
class Leased:
    """One request that is to be sent in a batch."""

    entry: BatchEntry
    frames: list[Any]


class RouterEnd:
    """Binds, waits for a worker, sends it batches, reads its answers. Waits end with an error."""

    def __init__(self, path: str) -> None:
        self._listener = StreamListener(path)
        self._worker: StreamEnd | None = None
        self._numbers = itertools.count(1)
        self._generation = 1
        self._results: list[Got] = []
        self.messages = 0

    def __enter__(self) -> RouterEnd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Go away, as a router that dies."""
        self._listener.close()
        if self._worker is not None:
            self._worker.close()

    def attached(self) -> Attach:
        """Wait for a worker's first message."""
        self._worker = self._listener.accept()
        message, _ = self._receive()
        assert isinstance(message, Attach)
        return message

    def lease(
        self,
        inputs: Mapping[str, Any],
        *,
        model: str = "m",
        version: str | None = None,
        remaining_s: float = 30.0,
        must_run_alone: bool = False,
        queue_us: int = 0,
    ) -> Leased:
        """A request and its lease, numbered from 1."""
        number = next(self._numbers)
        specs = tuple(spec_of(name, value) for name, value in inputs.items())
        request = InferRequest(RequestId(number.to_bytes(16, "big")), model, version, specs)
        frames = [encode_client_message(request), *(to_frame(value) for value in inputs.values())]
        return self.lease_frames(frames, number, remaining_s, must_run_alone, queue_us)

    def lease_frames(
        self,
        frames: list[Any],
        number: int | None = None,
        remaining_s: float = 30.0,
        must_run_alone: bool = False,
        queue_us: int = 0,
    ) -> Leased:
        """Any frames as a request, whatever they hold."""
        lease = LeaseId(number or next(self._numbers))
        return Leased(BatchEntry(lease, len(frames), queue_us, int(remaining_s * 1e6), must_run_alone), frames)

    def send(self, *requests: Leased, generation: int | None = None) -> None:
        """Lease these to the worker in one message."""
        generation = self._generation if generation is None else generation
        batch = Batch(generation, tuple(one.entry for one in requests), int(time.monotonic() * 1e6))
        self.send_frames([encode_batch(batch), *(frame for one in requests for frame in one.frames)])

    def open_arena(self, memory: ClientMemory) -> None:
        """Hand shared memory over to the worker."""
        assert self._worker is not None
        fd = memory.duplicate()
        self._worker.send([encode_arena_message(ArenaOpened(memory.key, memory.size_bytes))], [fd])
        os.close(fd)

    def close_arena(self, key: int) -> None:
        """Tell the worker that no request will name it any more."""
        self.send_frames([encode_arena_message(ArenaClosed(key))])

    def lease_shared(
        self,
        memory: ClientMemory,
        inputs: Mapping[str, np.ndarray],
        area: tuple[int, int] | None = None,
        at: int = 0,
    ) -> Leased:
        """A request whose inputs lie in shared memory, `area` is offset and size for its outputs."""
        number = next(self._numbers)
        specs, frames = [], []
        for name, array in inputs.items():
            specs.append(dataclasses.replace(spec_of(name, array), place=Place.ARENA))
            frames.append(memory.write(array, at))
            at += -(-array.nbytes // PLACE_ALIGNMENT_BYTES) * PLACE_ALIGNMENT_BYTES
        if area is not None:
            frames.append(memory.ref(*area))
        request = InferRequest(
            RequestId(number.to_bytes(16, "big")), "m", None, tuple(specs), has_area=area is not None
        )
        header = encode_client_message(request)
        return self.lease_frames([header, *frames], number)

    def send_frames(self, frames: Sequence[Any]) -> None:
        """Send any message to the worker."""
        assert self._worker is not None
        self._worker.send(frames)

    def send_bytes(self, data: bytes) -> None:
        """Send what is no message to the worker."""
        assert self._worker is not None
        self._worker.send_bytes(data)

    def results(self, count: int) -> dict[int, Got]:
        """Wait for so many answers, by lease; one lease answered twice fails the test."""
        while len(self._results) < count:
            message, frames = self._receive()
            assert isinstance(message, Results)
            self.messages += 1
            at = 0
            for entry in message.entries:
                own = frames[at : at + entry.frame_count]
                at += entry.frame_count
                answer = decode_router_message(own[0])
                outputs = {}
                if isinstance(answer, InferAnswer):
                    pairs = zip(answer.outputs, own[1:], strict=True)
                    outputs = {spec.name: _read(spec, frame) for spec, frame in pairs}
                assert isinstance(answer, InferAnswer | ErrorAnswer)
                self._results.append(Got(entry.lease, entry.code, answer, outputs))
            assert at == len(frames)
        taken, self._results = self._results[:count], self._results[count:]
        by_lease = {one.lease: one for one in taken}
        assert len(by_lease) == count
        return by_lease

    def ask(self, inputs: Mapping[str, Any], **fields: Any) -> Got:
        """One request, one answer."""
        leased = self.lease(inputs, **fields)
        self.send(leased)
        return self.results(1)[leased.entry.lease]

    def is_silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for a while. For what must not happen; nothing else waits for time."""
        assert self._worker is not None
        return not self._worker.poll(seconds)

    def _receive(self) -> tuple[Any, list[bytes]]:
        assert self._worker is not None
        header, *frames = self._worker.receive(what="word of the worker")
        return decode_worker_message(header), frames


def _read(spec: TensorSpec, frame: bytes) -> Any:
    return from_frame(spec, frame) if spec.place is Place.FRAME else decode_ref(frame)
