"""The golden frames of wire protocol v1: which message each file under tests/golden/wire_v1 holds.

A file is one frame. It is written once by scripts/golden and never changed: a difference means that old clients break.
Only what router and workers say to each other (batches, results, attaches) may change with a version of the daemon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import wire
from tests.support.batches import (
    Batch,
    BatchEntry,
    ResultEntry,
    Results,
    decode_batch,
    decode_worker_message,
    encode_batch,
    encode_worker_message,
)
from trtd.core.ids import LeaseId
from trtd.wire import codec, tensors
from trtd.wire.messages import (
    UNKNOWN_REQUEST_ID,
    DescribeAnswer,
    DescribeRequest,
    Dtype,
    HealthRequest,
    TensorContract,
    TensorSpec,
    Timing,
    Unserved,
)
from trtd.wire.tensors import BFloat16, Float8

FOLDER = Path(__file__).parents[1] / "golden" / "wire_v1"

MODELS = (
    wire.make_description(),
    wire.make_description(
        name="détecteur",
        version="2025.1-rc1",
        inputs=(TensorContract("images", Dtype.UINT8, (None, 3, None, None)), TensorContract("limit", Dtype.INT64, ())),
        outputs=(TensorContract("boxes", Dtype.FLOAT32, (None, 4)), TensorContract("kept", Dtype.BOOL, (None,))),
        is_batched=False,
        max_batch=0,
        batching="alone: input 'limit' has no dimensions",
    ),
    wire.make_description(
        name="forest",
        inputs=(TensorContract("rows", Dtype.FLOAT32, None),),
        optional_inputs=(TensorContract("threshold", Dtype.FLOAT32, (1,)),),
        unserved=(Unserved("probabilities", "is a seq(map(int64,tensor(float))), which does not travel"),),
        is_batched=False,
        max_batch=0,
        batching="off",
    ),
)

ALL_DTYPES = tuple(
    TensorSpec(f"in.{dtype}", dtype, shape)
    for dtype, shape in zip(Dtype, [(), (0,), (3,), (2, 0, 5), (1, 2, 3)] * 4, strict=True)
)


@dataclass(frozen=True, slots=True)
class Golden:
    """One golden frame.

    Attributes:
        message: what it means.
        encode: message to bytes.
        decode: bytes to message.
    """

    message: Any
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def _client(message: Any) -> Golden:
    return Golden(message, codec.encode_client_message, codec.decode_client_message)


def _router(message: Any) -> Golden:
    return Golden(message, codec.encode_router_message, codec.decode_router_message)


def _worker(message: Any) -> Golden:
    return Golden(message, encode_worker_message, decode_worker_message)


def _tensor(tensor: tensors.Tensor) -> Golden:
    spec = tensors.spec_of("x", tensor)
    return Golden(
        tensors.bits_of(tensor),
        lambda _: bytes(tensors.to_frame(tensor)),
        lambda frame: tensors.from_frame(spec, frame),
    )


def _tensors() -> dict[str, Golden]:
    numbers = np.array([[0, 1, 2], [3, 100, 127]])
    plain = {
        f"tensor-{dtype}": _tensor(numbers.astype(tensors.to_numpy(dtype)))
        for dtype in Dtype
        if dtype not in {Dtype.BOOL, Dtype.BFLOAT16, *tensors.FLOAT8S}
    }
    float8 = {
        f"tensor-{dtype}": _tensor(Float8.from_float32([1.0, 0.5, 4.0, 16.0, np.nan], dtype))
        for dtype in tensors.FLOAT8S
    }
    return {
        **plain,
        **float8,
        "tensor-bool": _tensor(numbers > 1),
        "tensor-bfloat16": _tensor(BFloat16.from_float32([1.0, -2.5, 3.140625, np.inf])),
        "tensor-0d": _tensor(np.array(-1.5, dtype=np.float32)),
        "tensor-empty": _tensor(np.zeros((2, 0, 5), dtype=np.float64)),
        "tensor-strided": _tensor(np.arange(12, dtype=np.int16).reshape(3, 4)[:, ::2].T),
        "tensor-big-endian": _tensor(np.array([1, 258, -2], dtype=">i4")),
    }


GOLDEN: dict[str, Golden] = {
    "infer-minimal": _client(wire.make_infer_request()),
    "infer-full": _client(wire.make_infer_request(model="détecteur", version="2025.1-rc1", timeout_s=1.5, priority=-8)),
    "infer-every-dtype": _client(wire.make_infer_request(inputs=ALL_DTYPES, priority=7)),
    "infer-resent": _client(wire.make_infer_request(timeout_s=30.0, is_resent=True)),
    "infer-outputs": _client(wire.make_infer_request(outputs=("scores", "boxes"))),
    "infer-no-inputs": _client(wire.make_infer_request(inputs=())),
    "describe-all": _client(DescribeRequest(wire.REQUEST_ID)),
    "describe-one": _client(DescribeRequest(wire.REQUEST_ID, "mlp")),
    "health": _client(HealthRequest(wire.REQUEST_ID)),
    "result": _router(wire.make_infer_answer()),
    "result-every-dtype": _router(
        wire.make_infer_answer(outputs=ALL_DTYPES, generation=2**40, timing=Timing(0, 2**31, 2**33))
    ),
    "error": _router(wire.make_error_answer()),
    "error-retry": _router(wire.make_error_answer(retry_after_s=0.25)),
    "error-unknown-id": _router(wire.make_error_answer(id=UNKNOWN_REQUEST_ID, code="malformed", message="id: missing")),
    "models": Golden(
        DescribeAnswer(wire.REQUEST_ID, MODELS),
        codec.encode_router_message,
        lambda header: codec.decode_router_message(header, [codec.encode_models(MODELS)]),
    ),
    "models-frame": Golden(MODELS, codec.encode_models, codec.decode_models),
    "health-waiting": _router(wire.make_health_answer()),
    "health-ready": _router(wire.make_health_answer(is_ready=True, state="ready", reason="")),
    "batch-one": Golden(wire.make_batch(), encode_batch, decode_batch),
    "batch-many": Golden(
        Batch(
            7,
            (
                BatchEntry(LeaseId(0), 1, 0, 0),
                BatchEntry(LeaseId(2**63 - 1), 33, 2**40, 2**41, must_run_alone=True),
                *wire.make_batch(62).entries,
            ),
        ),
        encode_batch,
        decode_batch,
    ),
    "results-one": _worker(wire.make_results()),
    "results-many": _worker(
        Results(7, (ResultEntry(LeaseId(2**63 - 1), 1, "model_failed"), *wire.make_results(63).entries))
    ),
    "attach": _worker(wire.make_attach(models=MODELS)),
    "attach-no-models": _worker(wire.make_attach(models=())),
    **_tensors(),
}


def path_of(name: str) -> Path:
    """The file of a golden frame."""
    return FOLDER / f"{name}.bin"


def write_missing() -> list[Path]:
    """Write the golden frames that have no file yet, and only those."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    written = []
    for name, golden in GOLDEN.items():
        path = path_of(name)
        if not path.exists():
            path.write_bytes(golden.encode(golden.message))
            written.append(path)
    return written
