"""Wire protocol v1: the messages between clients and the router, and between the router and workers.

A message is one small msgpack header frame, then raw tensor frames (C order, little endian). Limits on the header, and
the encoding itself, are in `trtd.wire.codec`; the README describes the same in words. The tenant stands in no message:
the endpoint decides it. Supervision travels elsewhere (`trtd.wire.control`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from trtd.core.ids import RequestId

WIRE_VERSION = 1

MAX_HEADER_BYTES = 64 * 1024
"""Room for as many tensors as travel with names of some fifty bytes, and for naming as many outputs."""
MAX_TENSORS = 256
"""Most tensors in one request or answer: a decoder's past has two for each of its layers."""
MAX_DIMS = 16
MAX_NAME_BYTES = 256
MAX_ENTRIES = 64
"""Most requests or answers in one message between router and worker."""


class Dtype(StrEnum):
    """Element types that travel. `bfloat16` and the float8s travel as their bits; strings do not travel."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT8_E4M3FN = "float8_e4m3fn"
    FLOAT8_E4M3FNUZ = "float8_e4m3fnuz"
    FLOAT8_E5M2 = "float8_e5m2"
    FLOAT8_E5M2FNUZ = "float8_e5m2fnuz"
    FLOAT8_E8M0FNU = "float8_e8m0fnu"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    COMPLEX64 = "complex64"
    COMPLEX128 = "complex128"


ITEM_BYTES: dict[Dtype, int] = {
    Dtype.BOOL: 1, Dtype.INT8: 1, Dtype.UINT8: 1,
    Dtype.FLOAT8_E4M3FN: 1, Dtype.FLOAT8_E4M3FNUZ: 1, Dtype.FLOAT8_E5M2: 1, Dtype.FLOAT8_E5M2FNUZ: 1,
    Dtype.FLOAT8_E8M0FNU: 1,
    Dtype.INT16: 2, Dtype.UINT16: 2, Dtype.FLOAT16: 2, Dtype.BFLOAT16: 2,
    Dtype.INT32: 4, Dtype.UINT32: 4, Dtype.FLOAT32: 4,
    Dtype.INT64: 8, Dtype.UINT64: 8, Dtype.FLOAT64: 8, Dtype.COMPLEX64: 8,
    Dtype.COMPLEX128: 16,
}  # fmt: skip


class Place(StrEnum):
    """Where a tensor's bytes are.

    `frame`: in its tensor frame. `arena`: in shared memory of the client; its tensor frame is an `ArenaRef`
    (`trtd.wire.arenas`) that says where.
    """

    FRAME = "frame"
    ARENA = "arena"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor as a header names it.

    Attributes:
        name: the model's name for it.
        dtype: element type.
        shape: dimensions, outermost first; empty for a 0-d tensor; a 0 means no elements.
        place: where its bytes are.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    place: Place = Place.FRAME


@dataclass(frozen=True, slots=True)
class InferRequest:
    """Client to router: run a model.

    Attributes:
        id: 16 bytes, unique among the client's requests; a resend carries the same.
        model: name of the model.
        version: version of the model, None for the tenant's newest.
        inputs: in the order of their frames.
        timeout_s: seconds from receipt until the answer is due, None for the tenant's default.
        priority: 0 is normal, higher goes first, from -8 to 7.
        is_resent: it was sent before, on a connection that broke; a tenant that drains still answers what it accepted
            then.
        has_area: one more frame follows those of the inputs: an `ArenaRef` to the area of the client's shared memory
            into which the outputs may be written. Outputs that do not fit there come in frames.
        outputs: names of the outputs that are wanted, in the order in which they shall come; None for all.
    """

    id: RequestId
    model: str
    version: str | None
    inputs: tuple[TensorSpec, ...]
    timeout_s: float | None = None
    priority: int = 0
    is_resent: bool = False
    has_area: bool = False
    outputs: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class DescribeRequest:
    """Client to router: what models are there? `model` None asks for all of the tenant's."""

    id: RequestId
    model: str | None = None


@dataclass(frozen=True, slots=True)
class HealthRequest:
    """Client to router: is this tenant ready?"""

    id: RequestId


ClientMessage = InferRequest | DescribeRequest | HealthRequest


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went, in microseconds: waiting in the router, waiting in the worker, running."""

    queue_us: int
    batch_us: int
    compute_us: int


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """Router to client: the result, as the worker wrote it.

    Attributes:
        id: the request's.
        model: name of the model that ran.
        version: its version.
        generation: the worker's.
        outputs: in the order of their frames.
        timing: where the time went.
    """

    id: RequestId
    model: str
    version: str
    generation: int
    outputs: tuple[TensorSpec, ...]
    timing: Timing


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """Router to client: a typed error.

    Attributes:
        id: the request's; 16 zero bytes where it could not be read.
        code: an `ErrorCode`; kept as text so that an older client can read a newer daemon.
        message: one line.
        retry_after_s: where known.
    """

    id: RequestId
    code: str
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class TensorContract:
    """One input or output of a model.

    Attributes:
        name: of it.
        dtype: element type.
        shape: None is a dimension that may vary; None in place of all of them: nobody knows how many there are.
    """

    name: str
    dtype: Dtype
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class Unserved:
    """An output of a model that no answer has.

    Attributes:
        name: of it.
        reason: why, as the end of a sentence that begins with its name.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a client has to know to call a model.

    Attributes:
        name: of the model.
        version: of the model.
        inputs: each with dtype and shape; a request has all of them.
        outputs: likewise; what a request gets that names none.
        is_batched: whether the first dimension of every tensor counts items, so that requests may run together.
        max_batch: most items that are joined to one run; 0 where the model does not batch. One request may have more,
            where the model takes that.
        optional_inputs: each has a default; a request may have them too, and is not joined with others then.
        unserved: the outputs that no answer has.
        batching: why requests may run together or not: `proven`, `forced`, `off`, or `alone: REASON`.
    """

    name: str
    version: str
    inputs: tuple[TensorContract, ...]
    outputs: tuple[TensorContract, ...]
    is_batched: bool
    max_batch: int
    optional_inputs: tuple[TensorContract, ...] = ()
    unserved: tuple[Unserved, ...] = ()
    batching: str = ""


@dataclass(frozen=True, slots=True)
class DescribeAnswer:
    """Router to client: the models. Written in one frame after the header, which need not fit the header's limits."""

    id: RequestId
    models: tuple[ModelDescription, ...]


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """Router to client: readiness of the tenant of this endpoint.

    Attributes:
        id: the request's.
        is_ready: whether a worker would take a request now.
        state: `ready`, `waiting` (no worker at the moment, one is expected), `draining` or `unavailable`.
        reason: one line where it is not ready.
        wire_versions: versions that the daemon speaks.
        daemon_version: version of trtd.
    """

    id: RequestId
    is_ready: bool
    state: str
    reason: str
    wire_versions: tuple[int, ...]
    daemon_version: str


RouterMessage = InferAnswer | ErrorAnswer | DescribeAnswer | HealthAnswer


# Between router and worker. An entry's own frames follow the batch header in the order of the entries: for a request
# its header frame as the client sent it, then its tensor frames; for a result the header frame as the client shall get
# it, then its tensor frames.


@dataclass(frozen=True, slots=True)
class Attach:
    """Worker to router, first message of each connection: who I am.

    The router compares the kernel's pid of the peer with the supervisor's word.
    """

    tenant: str
    replica: int
    generation: int
    models: tuple[ModelDescription, ...]


@dataclass(frozen=True, slots=True)
class ArenaOpened:
    """Router to worker: from now on requests may name this arena; its memfd travels beside the message.

    Attributes:
        key: by which `ArenaRef`s name it.
        size_bytes: of the whole; the router has checked it, and the seals.
    """

    key: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArenaClosed:
    """Router to worker: no request will name this arena any more, and none that the worker holds does."""

    key: int


UNKNOWN_REQUEST_ID = RequestId(bytes(16))
