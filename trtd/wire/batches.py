"""The headers between router and workers, with many requests or answers in each.

The two that travel with every request are plain numbers, little endian, one entry after the other. A batch is a head
(mark, version, kind, generation, sent_at_us) and its entries (lease, frame_count, queue_us, remaining_us,
must_run_alone); results are a head (mark, version, kind, generation) and theirs (lease, frame_count, code). The mark is
a byte with which no msgpack begins. A lease is the router's number for a request, `frame_count` counts its frames with
its header, `queue_us` is how long it waited in the router, `remaining_us` what was left until its deadline when it was
sent; `must_run_alone` says that it is suspected of ending workers. A code is an `ErrorCode`, or nothing for a result.
Entries are written and read as one list of fields, without an object for each.

The rare ones are msgpack arrays: an attach is `[v, "attach", tenant, replica, generation, models]`, and what a worker
is told of an arena is `[v, "arena", key, size]` and `[v, "arena_closed", key]`.

Decoders raise `Malformed`, `UnsupportedVersion` or `UnsupportedDtype` with one line, and nothing else: a worker runs
code that came with a model, so the router trusts it no more than a client. Whether a generation or a lease counts is
decided in `trtd.core.dispatch`.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from msgpack import packb

from trtd.errors import ErrorCode, Malformed, TooLarge, TrtdError
from trtd.wire import headers, packing
from trtd.wire.descriptions import MAX_MODELS, MAX_MODELS_BYTES, models_from_plain, models_to_plain
from trtd.wire.messages import (
    MAX_ENTRIES,
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    WIRE_VERSION,
    ArenaClosed,
    ArenaOpened,
    Attach,
)

MAX_ATTACH_BYTES = MAX_MODELS_BYTES + MAX_HEADER_BYTES
MAX_FRAME_COUNT = 2 + MAX_TENSORS
"""Most frames of one entry: header, tensors, and the area for the outputs."""
RESULTS_BYTES = 4 * 1024 * 1024
"""Results that together have more bytes travel in several messages; a larger one travels alone."""
BATCH_ITEMS = 5
"""Fields of an entry of a batch: lease, frame_count, queue_us, remaining_us, must_run_alone."""
RESULT_ITEMS = 3
"""Fields of an entry of results: lease, frame_count, code."""

Items = list[Any]
"""One field of all entries, in their order."""

_MARK = 0xC1
_BATCH = 1
_RESULTS = 2
_BATCH_HEAD = "<BBHQQ"
_BATCH_ENTRY = "QHQQ?"
_RESULTS_HEAD = "<BBHQ"
_RESULT_ENTRY = "QHH"
_MARK_VERSION_KIND = 3
_BATCHES = [Struct(_BATCH_HEAD + _BATCH_ENTRY * count) for count in range(MAX_ENTRIES + 1)]
_RESULTS_OF = [Struct(_RESULTS_HEAD + _RESULT_ENTRY * count) for count in range(MAX_ENTRIES + 1)]
_BATCHES_BY_BYTES = {form.size: form for form in _BATCHES[1:]}
_RESULTS_BY_BYTES = {form.size: form for form in _RESULTS_OF[1:]}
_CODES: tuple[ErrorCode | None, ...] = (None, *ErrorCode)
"""By the number under which they travel. Both ends are of one version of the daemon."""
_NUMBERS = {code: number for number, code in enumerate(_CODES)}
_ATTACH_ITEMS = 6
_ARENA_ITEMS = 3
_MAX_ARENA_HEADER_BYTES = 64


def encode_batch_items(generation: int, sent_at_us: int, items: list[Any]) -> bytes:
    """The header frame of a batch of 1 to 64 entries; the requests' own frames follow it.

    Args:
        generation: the worker's.
        sent_at_us: now, on CLOCK_MONOTONIC of the host, which both share; the times of the entries count from then, so
            that a message that waits for a busy worker does not gain time.
        items: the fields of all entries, one entry after the other; see the module.

    Raises:
        TooLarge: there are more entries.
    """
    count = len(items) // BATCH_ITEMS
    if count > MAX_ENTRIES:
        raise TooLarge(f"a batch has {count} entries, the most is {MAX_ENTRIES}")
    return _BATCHES[count].pack(_MARK, WIRE_VERSION, _BATCH, generation, sent_at_us, *items)


def decode_batch_items(header: bytes | memoryview) -> tuple[int, int, list[Any]]:
    """A batch from its header frame: generation, `sent_at_us`, and the fields of all entries in one list.

    Raises:
        Malformed, UnsupportedVersion: see above.
    """
    form = _BATCHES_BY_BYTES.get(len(header))
    if form is None or header[0] != _MARK:
        raise _wrong_form(header, "a batch")
    _, version, kind, generation, sent_at_us, *items = form.unpack(header)
    _check_head(version, kind, _BATCH)
    _check_frame_counts(items[1::BATCH_ITEMS])
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
    if len(header) > _MAX_ARENA_HEADER_BYTES or (header and header[0] == _MARK):
        return None
    flat = headers.unpack(header, "the router's message", _MAX_ARENA_HEADER_BYTES)
    if type(flat) is not tuple or len(flat) < _ARENA_ITEMS or flat[1] not in {"arena", "arena_closed"}:
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


def encode_attach(attach: Attach) -> bytes:
    """The header frame, and only one, with which a worker says who it is.

    Raises:
        TooLarge: the descriptions of the models break their limit.
    """
    plain = models_to_plain(attach.models)
    data: bytes = packb((WIRE_VERSION, "attach", attach.tenant, attach.replica, attach.generation, plain))
    if len(data) > MAX_ATTACH_BYTES or len(attach.models) > MAX_MODELS:
        raise TooLarge(
            f"the attach of {len(attach.models)} models needs {len(data)} bytes, "
            f"the most is {MAX_MODELS} models and {MAX_ATTACH_BYTES} bytes"
        )
    return data


def max_results_bytes(max_answer_bytes: int) -> int:
    """Most bytes of one message of a worker, with all that is around its answers; each of them has at most so many."""
    around = MAX_ENTRIES * (MAX_HEADER_BYTES + MAX_FRAME_COUNT * packing.OVERHEAD_BYTES)
    return max(RESULTS_BYTES, max_answer_bytes) + MAX_ATTACH_BYTES + around


def encode_results_items(generation: int, items: list[Any]) -> bytes:
    """The header frame of 1 to 64 results; the answers' own frames follow it.

    Args:
        generation: the worker's.
        items: the fields of all entries, one entry after the other; see the module. It is changed.

    Raises:
        TooLarge: there are more entries.
    """
    count = len(items) // RESULT_ITEMS
    if count > MAX_ENTRIES:
        raise TooLarge(f"a message has {count} results, the most is {MAX_ENTRIES}")
    items[2::RESULT_ITEMS] = map(_NUMBERS.__getitem__, items[2::RESULT_ITEMS])
    return _RESULTS_OF[count].pack(_MARK, WIRE_VERSION, _RESULTS, generation, *items)


def decode_worker_items(header: bytes | memoryview) -> Attach | tuple[int, Items, Items, Items]:
    """A worker's message from its header frame: of results the generation, and the leases, frame counts and codes.

    Raises:
        Malformed, UnsupportedVersion, UnsupportedDtype: see above.
    """
    form = _RESULTS_BY_BYTES.get(len(header))
    if form is None or header[0] != _MARK:
        return _decode_attach(header)
    _, version, kind, generation, *items = form.unpack(header)
    _check_head(version, kind, _RESULTS)
    frame_counts = items[1::RESULT_ITEMS]
    _check_frame_counts(frame_counts)
    numbers = items[2::RESULT_ITEMS]
    if any(numbers):
        if max(numbers) >= len(_CODES):
            raise Malformed(f"a result has the unknown code {max(numbers)}")
        codes = [_CODES[number] for number in numbers]
    else:
        codes = [None] * len(numbers)
    return generation, items[0::RESULT_ITEMS], frame_counts, codes


def _decode_attach(header: bytes | memoryview) -> Attach:
    if header and header[0] == _MARK:
        raise _wrong_form(header, "results")
    flat = headers.unpack(header, "the worker's message", MAX_ATTACH_BYTES, MAX_MODELS)
    if type(flat) is not tuple or len(flat) != _ATTACH_ITEMS or flat[1] != "attach":
        raise _wrong_head(flat, "attach")
    version, _, tenant, replica, generation, models = flat
    if type(version) is not int or version != WIRE_VERSION:
        raise headers.wrong_version(version)
    _check_uint(replica, "replica")
    _check_uint(generation, "generation")
    return Attach(headers.check_name(tenant, "tenant"), replica, generation, models_from_plain(models))


def _check_head(version: int, kind: int, expected: int) -> None:
    if version != WIRE_VERSION:
        raise headers.wrong_version(version)
    if kind != expected:
        raise Malformed(f"the message is of kind {kind}, expected {expected}")


def _check_frame_counts(counts: Items) -> None:
    if max(counts) > MAX_FRAME_COUNT or 0 in counts:
        raise Malformed(f"an entry has 1 to {MAX_FRAME_COUNT} frames, got {', '.join(map(str, counts))}")


def _check_uint(value: object, what: str) -> None:
    if type(value) is not int or not 0 <= value <= headers.MAX_UINT:
        raise Malformed(f"{what}: expected an integer from 0 to 2**63 - 1, got {headers.show(value)}")


def _wrong_head(flat: object, kind: str) -> TrtdError:
    if not isinstance(flat, tuple):
        return Malformed(f"expected an array, got {headers.type_name(flat)}")
    return Malformed(f"expected an array [v, {kind!r}, ...], got {len(flat)} items that start otherwise")


def _wrong_form(header: bytes | memoryview, what: str) -> TrtdError:
    """Why a header is none of those that are plain numbers."""
    if len(header) < _MARK_VERSION_KIND or header[0] != _MARK:
        return Malformed(f"expected {what}, got {len(header)} bytes that start otherwise")
    if header[1] != WIRE_VERSION:
        return headers.wrong_version(header[1])
    return Malformed(f"{len(header)} bytes are no header of {what} with 1 to {MAX_ENTRIES} entries")
