"""Whether all that can be asked of a model, and all that it can answer, fits the wire protocol: shown before it serves.

What passes here is read by every client. What does not would be READY, and answer nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

from trtd.errors import InvalidConfig, TrtdError
from trtd.wire.batches import decode_worker_items, encode_attach
from trtd.wire.codec import (
    MIN_PRIORITY,
    decode_client_message,
    decode_router_message,
    encode_client_message,
    encode_router_message,
)
from trtd.wire.headers import MAX_UINT
from trtd.wire.messages import (
    MAX_DIMS,
    MAX_TENSORS,
    UNKNOWN_REQUEST_ID,
    Attach,
    InferAnswer,
    InferRequest,
    ModelDescription,
    Place,
    TensorContract,
    TensorSpec,
    Timing,
)
from trtd.wire.settings import WorkerSettings
from trtd.wire.specs import MAX_TENSOR_BYTES


def check_travels(description: ModelDescription, settings: WorkerSettings) -> None:
    """Write and read what describes the model, the largest headers for it, and the least that it takes and gives.

    Raises:
        trtd.errors.InvalidConfig: something of it does not travel, and what.
    """
    where = f"model {description.name!r}"
    inputs = description.inputs + description.optional_inputs
    for kind, contracts in (("inputs", inputs), ("outputs", description.outputs)):
        if len(contracts) > MAX_TENSORS:
            raise InvalidConfig(f"{where}: it has {len(contracts)} {kind}, of which {MAX_TENSORS} travel at most")
        for contract in contracts:
            if contract.shape is not None and len(contract.shape) > MAX_DIMS:
                dims = len(contract.shape)
                raise InvalidConfig(
                    f"{where}: {contract.name!r} has {dims} dimensions, of which {MAX_DIMS} travel at most"
                )
    attach = Attach(settings.tenant, settings.replica, settings.generation, (description,))
    try:
        decode_worker_items(encode_attach(attach))
    except TrtdError as error:
        raise InvalidConfig(f"{where}: {error.message}") from error
    try:
        encode_router_message(_answer(description, _specs(description.outputs, MAX_TENSOR_BYTES)))
        decode_router_message(encode_router_message(_answer(description, _specs(description.outputs, 1))))
    except TrtdError as error:
        raise InvalidConfig(f"{where}: not every answer of it travels: {error.message}") from error
    outputs = tuple(contract.name for contract in description.outputs)
    try:
        # The most that a header can need: free dimensions that need all digits, every key, every output by its name.
        encode_client_message(_request(description, _specs(inputs, MAX_TENSOR_BYTES), outputs))
        decode_client_message(encode_client_message(_request(description, _specs(inputs, 1), outputs or None)))
    except TrtdError as error:
        raise InvalidConfig(f"{where}: not every request for it travels: {error.message}") from error


def _request(
    description: ModelDescription, specs: tuple[TensorSpec, ...], outputs: tuple[str, ...] | None
) -> InferRequest:
    return InferRequest(
        UNKNOWN_REQUEST_ID,
        description.name,
        description.version,
        specs,
        timeout_s=0.1,
        priority=MIN_PRIORITY,
        is_resent=True,
        has_area=True,
        outputs=outputs,
    )


def _answer(description: ModelDescription, specs: tuple[TensorSpec, ...]) -> InferAnswer:
    timing = Timing(MAX_UINT, MAX_UINT, MAX_UINT)
    return InferAnswer(UNKNOWN_REQUEST_ID, description.name, description.version, MAX_UINT, specs, timing)


def _specs(contracts: Sequence[TensorContract], free_size: int) -> tuple[TensorSpec, ...]:
    """Tensors as a header names them, where every dimension that may vary has this size."""
    specs = []
    for contract in contracts:
        shape = (None,) * MAX_DIMS if contract.shape is None else contract.shape
        sizes = tuple(free_size if size is None else size for size in shape)
        specs.append(TensorSpec(contract.name, contract.dtype, sizes, Place.ARENA))
    return tuple(specs)
