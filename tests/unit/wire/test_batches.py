"""Headers between router and workers: many entries in one flat array."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from tests.support.wire import FIRST_LEASE, make_attach, make_batch, make_description, make_results, pack
from trtd.core.ids import LeaseId
from trtd.errors import ErrorCode, Malformed, TooLarge, UnsupportedVersion
from trtd.wire import batches
from trtd.wire.batches import MAX_FRAME_COUNT
from trtd.wire.messages import MAX_ENTRIES, MAX_HEADER_BYTES

uints = st.integers(0, 2**63 - 1)
counts = st.integers(1, batches.MAX_FRAME_COUNT)


@given(
    uints,
    uints,
    st.lists(st.builds(BatchEntry, uints, counts, uints, uints, st.booleans()), min_size=1, max_size=5).map(tuple),
)
@settings(deadline=None)
def test_batch_round_trips(generation: int, sent_at_us: int, entries: tuple[BatchEntry, ...]) -> None:
    """A worker reads the leases that the router wrote."""
    batch = Batch(generation, entries, sent_at_us)
    assert decode_batch(encode_batch(batch)) == batch


@given(
    uints,
    st.lists(
        st.builds(ResultEntry, uints, counts, st.none() | st.sampled_from(["model_failed", "out_of_memory"])),
        min_size=1,
        max_size=5,
    ).map(tuple),
)
@settings(deadline=None)
def test_results_round_trip(generation: int, entries: tuple[ResultEntry, ...]) -> None:
    """The router reads the results that a worker wrote."""
    results = Results(generation, entries)
    assert decode_worker_message(encode_worker_message(results)) == results


@pytest.mark.parametrize("models", [0, 1, 100])
def test_attach_round_trips(models: int) -> None:
    """A worker's first word is read as written, also when its models need more room than a header has."""
    attach = make_attach(models=tuple(make_description(name=f"m{at}") for at in range(models)))
    assert decode_worker_message(encode_worker_message(attach)) == attach


def test_a_full_message_fits_a_header() -> None:
    """64 entries with the largest numbers stay within the limit of a header."""
    most = 2**63 - 1
    entries = tuple(BatchEntry(most, MAX_FRAME_COUNT, most, most, True) for _ in range(MAX_ENTRIES))  # type: ignore[arg-type]  # NewType
    batch = Batch(most, entries, most)
    header = encode_batch(batch)
    assert len(header) <= MAX_HEADER_BYTES
    assert decode_batch(header) == batch
    results = make_results(MAX_ENTRIES, code="deadline_exceeded")
    header = encode_worker_message(results)
    assert len(header) <= MAX_HEADER_BYTES
    assert decode_worker_message(header) == results


def test_more_entries_than_fit_are_not_sent() -> None:
    """The 65th entry is refused where it is written."""
    with pytest.raises(TooLarge, match="65 entries, the most is 64"):
        encode_batch(make_batch(65))
    with pytest.raises(TooLarge, match="65 results, the most is 64"):
        encode_worker_message(make_results(65))


ATTACH = [1, "attach", "blue", 0, 3, []]
RESULTS = (0xC1, 1, 2, 3, FIRST_LEASE, 2, 0)


@pytest.mark.parametrize(
    ("at", "value", "text"),
    [
        (0, 0xC0, "start otherwise"),
        (2, 0, "of kind 0"),
        (2, 2, "of kind 2"),
        (6, 0, f"1 to {MAX_FRAME_COUNT} frames, got 0"),
        (6, MAX_FRAME_COUNT + 1, f"1 to {MAX_FRAME_COUNT} frames, got {MAX_FRAME_COUNT + 1}"),
    ],
)
def test_a_bad_batch_is_refused(at: int, value: int, text: str) -> None:
    """A worker refuses a header in which any number is not as it must be."""
    numbers = [0xC1, 1, 1, 3, 5_000_000, FIRST_LEASE, 2, 150, 2_000_000, 0]
    numbers[at] = value
    with pytest.raises(Malformed, match=text):
        decode_batch(struct.pack("<BBHQQQHQQ?", *numbers))


@pytest.mark.parametrize(
    ("at", "value", "text"),
    [
        (0, 0xC0, "not valid msgpack|further bytes|start otherwise|got nil"),
        (2, 1, "of kind 1"),
        (5, 0, f"1 to {MAX_FRAME_COUNT} frames, got 0"),
        (5, MAX_FRAME_COUNT + 1, f"1 to {MAX_FRAME_COUNT} frames, got {MAX_FRAME_COUNT + 1}"),
        (6, len(ErrorCode) + 1, "unknown code 22"),
    ],
)
def test_bad_results_are_refused(at: int, value: int, text: str) -> None:
    """The router refuses a header in which any number is not as it must be."""
    numbers = [*RESULTS]
    numbers[at] = value
    with pytest.raises(Malformed, match=text):
        decode_worker_message(struct.pack("<BBHQQHH", *numbers))


def test_every_code_travels() -> None:
    """Each error code that a worker can answer with is read as written, beside results."""
    results = Results(3, tuple(ResultEntry(LeaseId(at), 1, code) for at, code in enumerate([None, *ErrorCode])))
    assert decode_worker_message(encode_worker_message(results)) == results


@pytest.mark.parametrize(
    ("at", "value"), [(2, ""), (2, 5), (2, "a\nb"), (3, -1), (3, True), (4, None), (4, 2**63), (5, None), (5, [1])]
)
def test_a_bad_attach_is_refused(at: int, value: Any) -> None:
    """A worker that does not introduce itself properly is refused."""
    with pytest.raises(Malformed):
        decode_worker_message(pack([*ATTACH[:at], value, *ATTACH[at + 1 :]]))


@pytest.mark.parametrize("cut", [1, 3, 4, 12, 19, -1])
def test_a_header_that_was_cut_is_refused(cut: int) -> None:
    """Entries are complete, and there is at least one."""
    for data, decode in (
        (encode_batch(make_batch()), decode_batch),
        (encode_worker_message(make_results()), decode_worker_message),
    ):
        with pytest.raises(Malformed):
            decode(data[:cut])
        with pytest.raises(Malformed):
            decode(data + bytes(1))


@pytest.mark.parametrize("plain", [ATTACH[:-1], [*ATTACH, 1], [], [1], [1, "results"], {}, 5, None])
def test_an_attach_of_the_wrong_length_is_refused(plain: Any) -> None:
    """What is msgpack and no attach is refused."""
    for decode in (decode_worker_message, decode_batch):
        with pytest.raises(Malformed):
            decode(pack(plain))


def test_another_version_is_refused() -> None:
    """A router and a worker of different versions say so, also when the other one's entries have another size."""
    other = struct.pack("<BBHQQHH", 0xC1, 2, *RESULTS[2:])
    batch = bytearray(encode_batch(make_batch()))
    batch[1] = 2
    for data in (other, other + bytes(5)):
        with pytest.raises(UnsupportedVersion, match="the message has 2"):
            decode_worker_message(data)
    with pytest.raises(UnsupportedVersion, match="the message has 2"):
        decode_batch(bytes(batch))
    with pytest.raises(UnsupportedVersion, match="the message has 2"):
        decode_worker_message(pack([2, *ATTACH[1:]]))
    with pytest.raises(Malformed, match="v: expected an integer, got a boolean"):
        decode_worker_message(pack([True, *ATTACH[1:]]))


def test_a_workers_message_has_no_more_bytes_than_an_attach() -> None:
    """Longer ones are refused before they are looked at."""
    with pytest.raises(Malformed, match="the most is"):
        decode_worker_message(pack([1, "attach", "x" * batches.MAX_ATTACH_BYTES]))
