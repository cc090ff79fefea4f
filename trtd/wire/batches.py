"""The headers between router and workers: flat msgpack arrays, because many requests or answers stand in one.

A batch is `[v, "batch", generation, (lease, frame_count, queue_us, remaining_us, must_run_alone)...]`, results are
`[v, "results", generation, (lease, frame_count, code or nil)...]`, without inner arrays. An attach is
`[v, "attach", tenant, replica, generation, models]`.

Decoders raise `Malformed` or `UnsupportedVersion` with one line, and nothing else; a worker runs code that came with a model,
so the router trusts it no more than a client. Whether a generation or lease is of today is decided in `trtd.core.dispatch`.
"""

from __future__ import annotations

from typing import Any, Never

from msgpack import packb

from trtd.core.ids import LeaseId
from trtd.errors import ErrorCode, Malformed, TooLarge
from trtd.wire import headers
from trtd.wire.messages import (
    MAX_ENTRIES,
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    WIRE_VERSION,
    Attach,
    Batch,
    BatchEntry,
    ResultEntry,
    Results,
    WorkerMessage,
)
from trtd.wire.specs import MAX_MODELS, MAX_MODELS_BYTES, model_fields, models_from_fields

MAX_ATTACH_BYTES = MAX_MODELS_BYTES + MAX_HEADER_BYTES
MAX_FRAME_COUNT = 1 + MAX_TENSORS

_HEAD_ITEMS = 3
_BATCH_ITEMS = 5
_RESULT_ITEMS = 3
_ATTACH_ITEMS = 6
_MAX_BATCH_ITEMS = _HEAD_ITEMS + MAX_ENTRIES * _BATCH_ITEMS
_MAX_RESULT_ITEMS = _HEAD_ITEMS + MAX_ENTRIES * _RESULT_ITEMS
_INT = {int}
_BOOL = {bool}
_CODES = frozenset(code.value for code in ErrorCode)
_CODES_OR_NIL = frozenset({None, *_CODES})


def encode_batch(batch: Batch) -> bytes:
    """The header frame of a batch; the requests' own frames follow it."""
    flat: list[Any] = [WIRE_VERSION, "batch", batch.generation]
    for entry in batch.entries:
        flat += (entry.lease, entry.frame_count, entry.queue_us, entry.remaining_us, entry.must_run_alone)
    return packb(flat)  # type: ignore[no-any-return]  # msgpack has no types


def decode_batch(header: bytes | memoryview) -> Batch:
    """A batch from its header frame.

    Raises:
        Malformed, UnsupportedVersion: see above.
    """
    flat = headers.unpack(header, "the batch", MAX_HEADER_BYTES, _MAX_BATCH_ITEMS)
    generation = _head(flat, "batch", _BATCH_ITEMS)
    leases = flat[3::5]
    counts = flat[4::5]
    queued = flat[5::5]
    remaining = flat[6::5]
    alone = flat[7::5]
    _check_whole(leases, "lease", headers.MAX_UINT)
    _check_counts(counts)
    _check_whole(queued, "queue_us", headers.MAX_UINT)
    _check_whole(remaining, "remaining_us", headers.MAX_UINT)
    if set(map(type, alone)) != _BOOL:
        raise Malformed("must_run_alone: expected a boolean")
    return Batch(generation, tuple(map(BatchEntry, leases, counts, queued, remaining, alone)))


def encode_worker_message(message: WorkerMessage) -> bytes:
    """The header frame of a worker's message; the answers' own frames follow results.

    Raises:
        TooLarge: the descriptions of the models break the limit.
    """
    if isinstance(message, Attach):
        data: bytes = packb(
            (WIRE_VERSION, "attach", message.tenant, message.replica, message.generation, model_fields(message.models))
        )
        if len(data) > MAX_ATTACH_BYTES or len(message.models) > MAX_MODELS:
            raise TooLarge(
                f"the descriptions of {len(message.models)} models need {len(data)} bytes, the most is {MAX_MODELS_BYTES}"
            )
        return data
    flat: list[Any] = [WIRE_VERSION, "results", message.generation]
    for entry in message.entries:
        flat += (entry.lease, entry.frame_count, None if entry.code is None else str(entry.code))
    return packb(flat)  # type: ignore[no-any-return]  # msgpack has no types


def decode_worker_message(header: bytes | memoryview) -> WorkerMessage:
    """A worker's message from its header frame.

    Raises:
        Malformed, UnsupportedVersion, UnsupportedDtype: see above.
    """
    if len(header) > MAX_HEADER_BYTES:
        flat = headers.unpack(header, "the attach", MAX_ATTACH_BYTES, MAX_MODELS)
        return _decode_attach(flat)
    flat = headers.unpack(header, "the worker's message", MAX_HEADER_BYTES, _MAX_RESULT_ITEMS)
    if type(flat) is tuple and len(flat) > 1 and flat[1] == "attach":
        return _decode_attach(flat)
    generation = _head(flat, "results", _RESULT_ITEMS)
    leases = flat[3::3]
    counts = flat[4::3]
    codes = flat[5::3]
    _check_whole(leases, "lease", headers.MAX_UINT)
    _check_counts(counts)
    for code in codes:
        if type(code) not in {str, type(None)} or code not in _CODES_OR_NIL:
            raise Malformed(f"code: expected nil or an error code, got {headers.show(code)}")
    return Results(generation, tuple(map(ResultEntry, leases, counts, codes)))


def _decode_attach(flat: object) -> Attach:
    if type(flat) is not tuple or len(flat) != _ATTACH_ITEMS or flat[1] != "attach":
        _refuse_head(flat, "attach")
    if type(flat[0]) is not int or flat[0] != WIRE_VERSION:
        headers.refuse_version(flat[0])
    _, _, tenant, replica, generation, models = flat
    _check_whole((replica,), "replica", headers.MAX_UINT)
    _check_whole((generation,), "generation", headers.MAX_UINT)
    return Attach(headers.check_name(tenant, "tenant"), replica, generation, models_from_fields(models))


def _head(flat: Any, kind: str, entry_items: int) -> int:
    """The generation from `[v, kind, generation, entries...]`, after checking that head and the number of entries."""
    if type(flat) is not tuple or len(flat) < _HEAD_ITEMS:
        _refuse_head(flat, kind)
    version, got_kind, generation = flat[:3]
    if type(version) is not int or version != WIRE_VERSION:
        headers.refuse_version(version)
    if got_kind != kind:
        _refuse_head(flat, kind)
    if type(generation) is not int or not 0 <= generation <= headers.MAX_UINT:
        raise Malformed("generation: expected an integer from 0 to 2**63 - 1")
    entries, rest = divmod(len(flat) - _HEAD_ITEMS, entry_items)
    if rest or not 1 <= entries <= MAX_ENTRIES:
        raise Malformed(
            f"expected 1 to {MAX_ENTRIES} entries of {entry_items} items, got {len(flat) - _HEAD_ITEMS} items"
        )
    return generation


def _refuse_head(flat: object, kind: str) -> Never:
    if not isinstance(flat, tuple):
        raise Malformed(f"expected an array, got {headers.type_name(flat)}")
    raise Malformed(f"expected an array [v, {kind!r}, ...], got {len(flat)} items that start otherwise")


def _check_whole(values: tuple[Any, ...], what: str, most: int) -> None:
    if set(map(type, values)) != _INT or min(values) < 0 or max(values) > most:
        raise Malformed(f"{what}: expected an integer from 0 to {most}")


def _check_counts(values: tuple[Any, ...]) -> None:
    if set(map(type, values)) != _INT or min(values) < 1 or max(values) > MAX_FRAME_COUNT:
        raise Malformed(f"frame_count: expected an integer from 1 to {MAX_FRAME_COUNT}")
