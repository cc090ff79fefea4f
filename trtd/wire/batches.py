"""The headers between router and workers: flat msgpack arrays, because many requests or answers stand in one.

A batch is `[v, "batch", generation, sent_at_us, (lease, frame_count, queue_us, remaining_us, must_run_alone)...]`,
results are `[v, "results", generation, (lease, frame_count, code or nil)...]`, with no array around an entry. An attach
is `[v, "attach", tenant, replica, generation, models]`. What a worker is told of an arena is `[v, "arena", key, size]`
and `[v, "arena_closed", key]`.

Decoders raise `Malformed`, `UnsupportedVersion` or `UnsupportedDtype` with one line, and nothing else: a worker runs
code that came with a model, so the router trusts it no more than a client. Whether a generation or a lease counts is
decided in `trtd.core.dispatch`.
"""

from __future__ import annotations

from typing import Any

from msgpack import packb

from trtd.errors import ErrorCode, Malformed, TooLarge, TrtdError
from trtd.wire import headers
from trtd.wire.descriptions import MAX_MODELS, MAX_MODELS_BYTES, models_from_plain, models_to_plain
from trtd.wire.messages import (
    MAX_ENTRIES,
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    WIRE_VERSION,
    ArenaClosed,
    ArenaOpened,
    Attach,
    Batch,
    BatchEntry,
    ResultEntry,
    Results,
    WorkerMessage,
)

MAX_ATTACH_BYTES = MAX_MODELS_BYTES + MAX_HEADER_BYTES
MAX_FRAME_COUNT = 2 + MAX_TENSORS
"""Most frames of one entry: header, tensors, and the area for the outputs."""
BATCH_ITEMS = 5
"""Fields of an entry of a batch: lease, frame_count, queue_us, remaining_us, must_run_alone."""

_HEAD_ITEMS = 3
_BATCH_HEAD_ITEMS = _HEAD_ITEMS + 1
_RESULT_ITEMS = 3
_ATTACH_ITEMS = 6
_MAX_BATCH_ITEMS = _BATCH_HEAD_ITEMS + MAX_ENTRIES * BATCH_ITEMS
_MAX_RESULT_ITEMS = _HEAD_ITEMS + MAX_ENTRIES * _RESULT_ITEMS
_MAX_ARENA_HEADER_BYTES = 64
_CODES = frozenset(code.value for code in ErrorCode)


def encode_batch(batch: Batch) -> bytes:
    """The header frame of a batch of 1 to 64 entries; the requests' own frames follow it.

    Raises:
        TooLarge: there are more entries.
    """
    items: list[Any] = []
    for entry in batch.entries:
        items += (entry.lease, entry.frame_count, entry.queue_us, entry.remaining_us, entry.must_run_alone)
    return encode_batch_items(batch.generation, batch.sent_at_us, items)


def encode_batch_items(generation: int, sent_at_us: int, items: list[Any]) -> bytes:
    """The same from the fields of all entries in one list, without an object per entry.

    Raises:
        TooLarge: as above.
    """
    if len(items) > MAX_ENTRIES * BATCH_ITEMS:
        raise TooLarge(f"a batch has {len(items) // BATCH_ITEMS} entries, the most is {MAX_ENTRIES}")
    return headers.pack_header([WIRE_VERSION, "batch", generation, sent_at_us, *items])


def decode_batch(header: bytes | memoryview) -> Batch:
    """A batch from its header frame.

    Raises:
        Malformed, UnsupportedVersion: see above.
    """
    generation, sent_at_us, items = decode_batch_items(header)
    fields = (items[at::BATCH_ITEMS] for at in range(BATCH_ITEMS))
    return Batch(generation, tuple(map(BatchEntry, *fields)), sent_at_us)


def decode_batch_items(header: bytes | memoryview) -> tuple[int, int, tuple[Any, ...]]:
    """The same without an object per entry: generation, `sent_at_us`, and the fields of all entries in one tuple.

    Raises:
        Malformed, UnsupportedVersion: see above.
    """
    flat = headers.unpack(header, "the batch", MAX_HEADER_BYTES, _MAX_BATCH_ITEMS)
    generation = _generation(flat, "batch", _BATCH_HEAD_ITEMS, BATCH_ITEMS)
    sent_at_us = flat[_BATCH_HEAD_ITEMS - 1]
    _check_uint(sent_at_us, "sent_at_us")
    items = flat[_BATCH_HEAD_ITEMS:]
    each = iter(items)
    for index, (lease, count, queue_us, remaining_us, is_alone) in enumerate(
        zip(each, each, each, each, each, strict=True)
    ):
        if type(lease) is not int or type(count) is not int or not 1 <= count <= MAX_FRAME_COUNT:
            raise _wrong_entry(lease, count, index)
        # The OR of integers is negative when one of them is, and as long as the longest.
        if (
            type(queue_us) is not int
            or type(remaining_us) is not int
            or type(is_alone) is not bool
            or not 0 <= (lease | queue_us | remaining_us) <= headers.MAX_UINT
        ):
            raise Malformed(
                f"entry {index}: lease, queue_us and remaining_us must be integers "
                "from 0 to 2**63 - 1, must_run_alone a boolean"
            )
    return generation, sent_at_us, items


def encode_arena_message(message: ArenaOpened | ArenaClosed) -> bytes:
    """The header frame, and only one, of what a worker is told about an arena."""
    if isinstance(message, ArenaOpened):
        return headers.pack_header([WIRE_VERSION, "arena", message.key, message.size_bytes])
    return headers.pack_header([WIRE_VERSION, "arena_closed", message.key])


def decode_arena_message(header: bytes | memoryview) -> ArenaOpened | ArenaClosed | None:
    """What a worker is told about an arena; None where the header is that of a batch.

    Raises:
        Malformed, UnsupportedVersion: see above.
    """
    if len(header) > _MAX_ARENA_HEADER_BYTES:
        return None
    flat = headers.unpack(header, "the router's message", _MAX_ARENA_HEADER_BYTES)
    if type(flat) is not tuple or len(flat) < _HEAD_ITEMS or flat[1] not in {"arena", "arena_closed"}:
        return None
    version, kind, *numbers = flat
    if type(version) is not int or version != WIRE_VERSION:
        raise headers.wrong_version(version)
    for number in numbers:
        _check_uint(number, kind)
    if kind == "arena" and len(numbers) == len(ArenaOpened.__slots__):
        return ArenaOpened(*numbers)
    if kind == "arena_closed" and len(numbers) == len(ArenaClosed.__slots__):
        return ArenaClosed(*numbers)
    raise _wrong_head(flat, kind)


def encode_worker_message(message: WorkerMessage) -> bytes:
    """The header frame of a worker's message; the answers' own frames follow 1 to 64 results.

    Raises:
        TooLarge: there are more results, or the descriptions of the models break their limit.
    """
    if isinstance(message, Attach):
        return _encode_attach(message)
    items: list[Any] = []
    for entry in message.entries:
        items += (entry.lease, entry.frame_count, entry.code)
    return encode_results_items(message.generation, items)


def encode_results_items(generation: int, items: list[Any]) -> bytes:
    """The header of results from the fields of all entries in one list, without an object per entry.

    Raises:
        TooLarge: there are more entries than 64.
    """
    if len(items) > MAX_ENTRIES * _RESULT_ITEMS:
        raise TooLarge(f"a message has {len(items) // _RESULT_ITEMS} results, the most is {MAX_ENTRIES}")
    return headers.pack_header([WIRE_VERSION, "results", generation, *items])


def decode_worker_message(header: bytes | memoryview) -> WorkerMessage:
    """A worker's message from its header frame.

    Raises:
        Malformed, UnsupportedVersion, UnsupportedDtype: see above.
    """
    message = decode_worker_items(header)
    if isinstance(message, Attach):
        return message
    generation, items = message
    return Results(generation, tuple(map(ResultEntry, items[0::3], items[1::3], items[2::3])))


def decode_worker_items(header: bytes | memoryview) -> Attach | tuple[int, tuple[Any, ...]]:
    """The same without an object per answer: for results the generation, and the fields of all entries in one tuple.

    Raises:
        Malformed, UnsupportedVersion, UnsupportedDtype: see above.
    """
    if len(header) > MAX_HEADER_BYTES:
        return _decode_attach(headers.unpack(header, "the attach", MAX_ATTACH_BYTES, MAX_MODELS))
    flat = headers.unpack(header, "the worker's message", MAX_HEADER_BYTES, _MAX_RESULT_ITEMS)
    if type(flat) is tuple and len(flat) > 1 and flat[1] == "attach":
        return _decode_attach(flat)
    generation = _generation(flat, "results", _HEAD_ITEMS, _RESULT_ITEMS)
    items = flat[_HEAD_ITEMS:]
    each = iter(items)
    for index, (lease, count, code) in enumerate(zip(each, each, each, strict=True)):
        if type(lease) is not int or type(count) is not int or not 1 <= count <= MAX_FRAME_COUNT:
            raise _wrong_entry(lease, count, index)
        if not 0 <= lease <= headers.MAX_UINT:
            raise _wrong_entry(lease, count, index)
        if code is not None and (type(code) is not str or code not in _CODES):
            raise Malformed(f"entry {index}: code must be nil or an error code, got {headers.show(code)}")
    return generation, items


def _encode_attach(attach: Attach) -> bytes:
    plain = models_to_plain(attach.models)
    data: bytes = packb((WIRE_VERSION, "attach", attach.tenant, attach.replica, attach.generation, plain))
    if len(data) > MAX_ATTACH_BYTES or len(attach.models) > MAX_MODELS:
        raise TooLarge(
            f"the attach of {len(attach.models)} models needs {len(data)} bytes, "
            f"the most is {MAX_MODELS} models and {MAX_ATTACH_BYTES} bytes"
        )
    return data


def _decode_attach(flat: object) -> Attach:
    if type(flat) is not tuple or len(flat) != _ATTACH_ITEMS or flat[1] != "attach":
        raise _wrong_head(flat, "attach")
    version, _, tenant, replica, generation, models = flat
    if type(version) is not int or version != WIRE_VERSION:
        raise headers.wrong_version(version)
    _check_uint(replica, "replica")
    _check_uint(generation, "generation")
    return Attach(headers.check_name(tenant, "tenant"), replica, generation, models_from_plain(models))


def _generation(flat: Any, kind: str, head_items: int, entry_items: int) -> int:
    """The generation from `[v, kind, generation, entries...]`, once that head and the number of entries are right."""
    if type(flat) is not tuple or len(flat) < head_items:
        raise _wrong_head(flat, kind)
    version, got_kind, generation = flat[:_HEAD_ITEMS]
    if type(version) is not int or version != WIRE_VERSION:
        raise headers.wrong_version(version)
    if got_kind != kind:
        raise _wrong_head(flat, kind)
    _check_uint(generation, "generation")
    entries, rest = divmod(len(flat) - head_items, entry_items)
    if rest or not 1 <= entries <= MAX_ENTRIES:
        raise Malformed(
            f"expected 1 to {MAX_ENTRIES} entries of {entry_items} items, got {len(flat) - head_items} items"
        )
    return generation  # type: ignore[no-any-return]  # just checked


def _check_uint(value: object, what: str) -> None:
    if type(value) is not int or not 0 <= value <= headers.MAX_UINT:
        raise Malformed(f"{what}: expected an integer from 0 to 2**63 - 1, got {headers.show(value)}")


def _wrong_head(flat: object, kind: str) -> TrtdError:
    if not isinstance(flat, tuple):
        return Malformed(f"expected an array, got {headers.type_name(flat)}")
    return Malformed(f"expected an array [v, {kind!r}, ...], got {len(flat)} items that start otherwise")


def _wrong_entry(lease: object, count: object, index: int) -> Malformed:
    return Malformed(
        f"entry {index}: lease must be an integer from 0 to 2**63 - 1 and frame_count one from 1 to {MAX_FRAME_COUNT}, "
        f"got {headers.show(lease)} and {headers.show(count)}"
    )
