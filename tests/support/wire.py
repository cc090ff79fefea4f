"""Builders of wire messages with defaults, so that a test shows only what matters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgpack

from tests.support.batches import Batch, BatchEntry, ResultEntry, Results
from trtd.core.ids import LeaseId, RequestId
from trtd.wire import packing
from trtd.wire.messages import (
    Attach,
    Dtype,
    ErrorAnswer,
    HealthAnswer,
    InferAnswer,
    InferRequest,
    ModelDescription,
    TensorContract,
    TensorSpec,
    Timing,
)

REQUEST_ID = RequestId(bytes(range(16)))
FIRST_LEASE = LeaseId(0x1234_5678 << 32)


def make_spec(name: str = "x", dtype: Dtype = Dtype.FLOAT32, shape: tuple[int, ...] = (1, 4)) -> TensorSpec:
    """A tensor in a frame."""
    return TensorSpec(name, dtype, shape)


def make_infer_request(**fields: Any) -> InferRequest:
    """A request with one input."""
    defaults: dict[str, Any] = {"id": REQUEST_ID, "model": "mlp", "version": None, "inputs": (make_spec(),)}
    return InferRequest(**{**defaults, **fields})


def make_infer_answer(**fields: Any) -> InferAnswer:
    """A result with one output."""
    defaults: dict[str, Any] = {
        "id": REQUEST_ID,
        "model": "mlp",
        "version": "1",
        "generation": 3,
        "outputs": (make_spec("y"),),
        "timing": Timing(120, 40, 900),
    }
    return InferAnswer(**{**defaults, **fields})


def make_error_answer(**fields: Any) -> ErrorAnswer:
    """A refusal."""
    defaults: dict[str, Any] = {"id": REQUEST_ID, "code": "overloaded", "message": "1024 requests wait already"}
    return ErrorAnswer(**{**defaults, **fields})


def make_health_answer(**fields: Any) -> HealthAnswer:
    """The health of a tenant that waits for a worker."""
    defaults: dict[str, Any] = {
        "id": REQUEST_ID,
        "is_ready": False,
        "state": "waiting",
        "reason": "its worker is starting",
        "wire_versions": (1,),
        "daemon_version": "0.1.0",
    }
    return HealthAnswer(**{**defaults, **fields})


def make_description(**fields: Any) -> ModelDescription:
    """A batched model with an input that varies."""
    defaults: dict[str, Any] = {
        "name": "mlp",
        "version": "1",
        "inputs": (TensorContract("x", Dtype.FLOAT32, (None, 4)),),
        "outputs": (TensorContract("y", Dtype.FLOAT16, (None, 2)),),
        "is_batched": True,
        "max_batch": 32,
        "batching": "proven",
    }
    return ModelDescription(**{**defaults, **fields})


def make_batch(entries: int = 1, **fields: Any) -> Batch:
    """A batch with so many entries, all built alike but for their leases."""
    defaults: dict[str, Any] = {"frame_count": 2, "queue_us": 150, "remaining_us": 2_000_000}
    leased = tuple(BatchEntry(LeaseId(FIRST_LEASE + at), **{**defaults, **fields}) for at in range(entries))
    return Batch(3, leased, sent_at_us=5_000_000)


def make_results(entries: int = 1, code: str | None = None) -> Results:
    """Results with so many entries, all built alike but for their leases."""
    return Results(3, tuple(ResultEntry(LeaseId(FIRST_LEASE + at), 2, code) for at in range(entries)))


def make_attach(**fields: Any) -> Attach:
    """The first message of a worker."""
    defaults: dict[str, Any] = {"tenant": "blue", "replica": 0, "generation": 3, "models": (make_description(),)}
    return Attach(**{**defaults, **fields})


def infer_fields(**fields: Any) -> dict[str, Any]:
    """The plain header of a valid request; a value of `...` leaves its key out."""
    defaults: dict[str, Any] = {
        "v": 1,
        "type": "infer",
        "id": bytes(REQUEST_ID),
        "model": "mlp",
        "inputs": [["x", "float32", [1, 4], "frame"]],
    }
    return {key: value for key, value in {**defaults, **fields}.items() if value is not ...}


def pack(value: Any) -> bytes:
    """The msgpack bytes of any value."""
    data: bytes = msgpack.packb(value)
    return data


def pack_bundle(messages: Iterable[Sequence[Any]]) -> bytes:
    """The second frame of a bundle."""
    return b"".join(part for frames in messages for part in packing.pack_sized(frames)[0])
