"""Mutated frames through every decoder of the wire: refusals must be typed, and what is accepted must be sound.

Each mutant is made from (seed, index) alone, so that a finding replays without the ones before it.
"""

from __future__ import annotations

import contextlib
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack

from tests.support import wire
from tests.support.batches import decode_batch, decode_worker_message, encode_batch, encode_worker_message
from tests.support.golden import GOLDEN, MODELS
from trtd.core.faults import Fault, FaultKind
from trtd.errors import Malformed, TooLarge, TrtdError, UnsupportedDtype, UnsupportedVersion
from trtd.wire import codec, control, tensors
from trtd.wire.batches import MAX_FRAME_COUNT
from trtd.wire.memo import HeaderMemo
from trtd.wire.messages import MAX_HEADER_BYTES, ClientMessage, InferRequest

MAX_LINE = 1000
MAX_TENSOR_BYTES = 4096
"""Tensors up to this size are built from accepted specs: numpy must take every shape that the codec takes."""
MEMORY_EVERY = 100
"""Memory is measured on each mutant whose index this divides."""

_MODELS_FRAME = codec.encode_models(MODELS)
_ID_AT = codec.encode_client_message(wire.make_infer_request()).index(wire.REQUEST_ID)
_ID_END = _ID_AT + len(wire.REQUEST_ID)
_RE_ENCODING_BYTES = 16
"""A canonical header can be that much longer than the accepted one: a whole number of seconds becomes a float."""


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder and its inverse."""

    name: str
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


def decode_through_memo(data: bytes) -> ClientMessage:
    """What the router's memo makes of a header of which it has seen a twin with another id."""
    memo = HeaderMemo()
    with contextlib.suppress(TrtdError):
        memo.decode(data[:_ID_AT] + bytes(byte ^ 0xFF for byte in data[_ID_AT:_ID_END]) + data[_ID_END:])
    request_id, known = memo.decode(data)
    try:
        plain = codec.decode_client_message(data)
    except TrtdError as error:
        raise AssertionError(f"the memo accepts what is refused without it: {error}") from None
    if replace(known.message, id=request_id) != plain:
        raise AssertionError(f"the memo reads {known.message!r}")
    return plain


TARGETS = (
    Target("client", codec.decode_client_message, codec.encode_client_message),
    Target("router", lambda data: codec.decode_router_message(data, [_MODELS_FRAME]), codec.encode_router_message),
    Target("memo", decode_through_memo, codec.encode_client_message),
    Target("models", codec.decode_models, codec.encode_models),
    Target("batch", decode_batch, encode_batch),
    Target("worker", decode_worker_message, encode_worker_message),
    Target("control", control.decode_message, control.encode),
)

SEEDS: tuple[bytes, ...] = (
    *(golden.encode(golden.message) for name, golden in GOLDEN.items() if not name.startswith("tensor-")),
    codec.encode_client_message(
        wire.make_infer_request(inputs=tuple(wire.make_spec("n" * 60 + str(at), shape=(1,) * 16) for at in range(32)))
    ),
    control.encode(control.WorkerReady(3, MODELS, "scripted 1", 0.25)),
    control.encode(control.WorkerBeat(3, 10, 1, 1 << 30, 1 << 31)),
    control.encode(control.FaultReport(3, Fault(FaultKind.OUT_OF_MEMORY, "too much"))),
    control.encode(control.Unfinished("blue", ("00" * 16,), 1)),
    control.encode(control.Stop()),
)

_HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, -8, 7, 8, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63),
    0.0, -0.0, 1.5, -1.5, 5e-324, 1e308, float("inf"), float("-inf"), float("nan"),
    "", "x", "frame", "shm", "string", "object", "float32", "bfloat16", "infer", "result", "x" * 257, "é" * 129, "a\nb",
    "\x00", "\u2028", "\u202e", "\U0001f600" * 70, b"", b"x" * 15, b"x" * 16, b"x" * 17, b"\xff" * 300,
    [], [[]], [0] * 16, [0] * 17, [2**62, 2**62, 0], [-1], [True], [None], [1.0], ["x"] * 65, {}, {"v": 1}, {"": {}},
    ["x", "float32", [1], "frame"], ["x", "float32", [1], ["shm", 0, 0, 4]], ["x", "string", [1], "frame"],
    msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 2),
)  # fmt: skip
NO_MSGPACK = 0xC1
"""The byte with which headers of plain numbers start, and no msgpack."""
HOSTILE: tuple[bytes, ...] = (*map(msgpack.packb, _HOSTILE_VALUES), b"\x91" * 200 + b"\xc0")
"""Values that a check could get wrong, packed, so that each use is a fresh one."""


@dataclass(slots=True)
class Report:
    """What a run found.

    Attributes:
        count: mutants.
        decodes: calls of decoders.
        outcomes: by decoder and outcome, `accepted` or an error code.
        took_s: length of the run.
        slowest_s: longest decode, in CPU time.
        most_bytes: most memory that one measured decode had at a time.
        failures: one line each, with seed, index and bytes.
    """

    count: int = 0
    decodes: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    took_s: float = 0.0
    slowest_s: float = 0.0
    most_bytes: int = 0
    failures: list[str] = field(default_factory=list)


def run(count: int, seed: int, first: int = 0) -> Report:
    """Decode so many mutants with every decoder."""
    report = Report()
    started = time.perf_counter()
    for index in range(first, first + count):
        data = mutant(seed, index)
        report.count += 1
        for target in TARGETS:
            report.decodes += 1
            try:
                outcome = _try(target, data, report, measure=index % MEMORY_EVERY == 0)
            except Exception as error:  # the very thing that is looked for; the run goes on to find the others
                outcome = "FAILED"
                report.failures.append(
                    f"seed {seed} index {index}: {target.name}: {type(error).__name__}: {error}: {data.hex()}"
                )
            report.outcomes[target.name, outcome] += 1
    report.took_s = time.perf_counter() - started
    return report


def _try(target: Target, data: bytes, report: Report, *, measure: bool) -> str:
    if measure:
        tracemalloc.start()
    before = time.thread_time()
    try:
        message = target.decode(data)
    except (Malformed, UnsupportedVersion, UnsupportedDtype) as error:
        line = str(error)
        if len(line) > MAX_LINE or not line.isprintable():
            raise AssertionError(f"a refusal that is not one short line: {line[:2000]!r}") from None
        return str(error.code)
    finally:
        report.slowest_s = max(report.slowest_s, time.thread_time() - before)
        if measure:
            report.most_bytes = max(report.most_bytes, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    try:
        again = target.encode(message)
    except TooLarge:
        if len(data) <= MAX_HEADER_BYTES - _RE_ENCODING_BYTES:
            raise
        return "accepted"
    if target.decode(again) != message:
        raise AssertionError(f"decodes to another message when it is encoded again: {message!r}")
    if isinstance(message, InferRequest):
        for spec in message.inputs:
            if tensors.payload_bytes(spec) <= MAX_TENSOR_BYTES:
                tensors.from_frame(spec, bytes(tensors.payload_bytes(spec)))
    return "accepted"


def mutant(seed: int, index: int) -> bytes:
    """The mutant of this number."""
    rng = random.Random(seed * 10**12 + index)
    data = rng.choice(SEEDS)
    data = _reshape(rng, data) if rng.random() < 0.5 else data
    if data and rng.random() < 0.6:
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            data = rng.choice(BYTE_MUTATIONS)(rng, data) or b"\x80"
    return data


def _flip(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _overwrite(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return (
        data[:at]
        + rng.choice((b"\x00", b"\x7f", b"\x80", b"\xc0", b"\xc1", b"\xdc", b"\xdf", b"\xff"))
        + data[at + 1 :]
    )


def _insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]


def _delete(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(1, 9) :]


def _truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    part = data[start : start + rng.randrange(1, 64)]
    return data[:start] + part * rng.choice((2, 3, 50)) + data[start:]


def _splice(rng: random.Random, data: bytes) -> bytes:
    other = rng.choice(SEEDS)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def _nest(rng: random.Random, data: bytes) -> bytes:
    return rng.choice(NESTINGS) * rng.choice((4, 64, 1023, 1400)) + data


NESTINGS = (
    b"\x91",
    b"\x81\xa1a",
    b"\xdc\x00\x40",
    b"\xdc\x04\x00",
    b"\xdc\x10\x00",
    b"\xdc\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xde\x00\x40\xa1a",
)
BYTE_MUTATIONS = (_flip, _flip, _overwrite, _insert, _delete, _truncate, _repeat, _splice, _nest)


def _reshape(rng: random.Random, data: bytes) -> bytes:
    """Change a value inside: such a mutant is valid msgpack and reaches the checks behind the unpacking."""
    if data[0] == NO_MSGPACK:
        return _renumber(rng, data)
    value = msgpack.unpackb(data)
    for _ in range(rng.choice((1, 1, 2))):
        holders = [value, *(inner for inner in _walk(value) if isinstance(inner, list | dict))]
        holder = rng.choice(holders)
        if isinstance(holder, dict):
            key = rng.choice([*holder, "resent", "timeout_s", "priority", "version", "model", ""])
            if rng.random() < 0.2:
                holder.pop(key, None)
            else:
                holder[key] = _hostile(rng)
        elif holder and rng.random() < 0.8:
            holder[rng.randrange(len(holder))] = _hostile(rng)
        elif holder and rng.random() < 0.5:
            holder.pop(rng.randrange(len(holder)))
        else:
            holder.append(_hostile(rng))
    packed: bytes = msgpack.packb(value)
    if packed[0] & 0xF0 == 0x80 and packed[0] < 0x8F and rng.random() < 0.05:
        key = msgpack.packb(rng.choice(list(value) or ["v"]))
        packed = bytes([packed[0] + 1]) + packed[1:] + key + rng.choice(HOSTILE)
    return packed


def _renumber(rng: random.Random, data: bytes) -> bytes:
    """Change one of the plain numbers in a header of their hop; its length stays that of some number of entries."""
    at = rng.randrange(len(data))
    numbers = (0, 1, 2, MAX_FRAME_COUNT, MAX_FRAME_COUNT + 1, 255, 2**16 - 1, 2**63, 2**64 - 1)
    number = rng.choice(numbers).to_bytes(8, "little")
    changed = number[: rng.choice((1, 2, 8))][: len(data) - at]
    return data[:at] + changed + data[at + len(changed) :]


def _hostile(rng: random.Random) -> Any:
    return msgpack.unpackb(rng.choice(HOSTILE))


def _walk(value: Any, depth: int = 5) -> Iterator[Any]:
    """The values inside a value, down to a depth that headers never reach."""
    inner = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    for item in inner:
        yield item
        if depth:
            yield from _walk(item, depth - 1)
