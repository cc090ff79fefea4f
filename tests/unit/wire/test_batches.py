"""Headers between router and workers: many entries in one flat array."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.wire import FIRST_LEASE, make_attach, make_batch, make_description, make_results, pack
from trtd.errors import Malformed, TooLarge, UnsupportedVersion
from trtd.wire import batches
from trtd.wire.messages import MAX_ENTRIES, MAX_HEADER_BYTES, Batch, BatchEntry, ResultEntry, Results

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
    assert batches.decode_batch(batches.encode_batch(batch)) == batch


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
    assert batches.decode_worker_message(batches.encode_worker_message(results)) == results


@pytest.mark.parametrize("models", [0, 1, 100])
def test_attach_round_trips(models: int) -> None:
    """A worker's first word is read as written, also when its models need more room than a header has."""
    attach = make_attach(models=tuple(make_description(name=f"m{at}") for at in range(models)))
    assert batches.decode_worker_message(batches.encode_worker_message(attach)) == attach


def test_a_full_message_fits_a_header() -> None:
    """64 entries with the largest numbers stay within the limit of a header."""
    most = 2**63 - 1
    entries = tuple(BatchEntry(most, 34, most, most, True) for _ in range(MAX_ENTRIES))  # type: ignore[arg-type]  # NewType
    batch = Batch(most, entries, most)
    header = batches.encode_batch(batch)
    assert len(header) <= MAX_HEADER_BYTES
    assert batches.decode_batch(header) == batch
    results = make_results(MAX_ENTRIES, code="deadline_exceeded")
    header = batches.encode_worker_message(results)
    assert len(header) <= MAX_HEADER_BYTES
    assert batches.decode_worker_message(header) == results


def test_more_entries_than_fit_are_not_sent() -> None:
    """The 65th entry is refused where it is written."""
    with pytest.raises(TooLarge, match="65 entries, the most is 64"):
        batches.encode_batch(make_batch(65))
    with pytest.raises(TooLarge, match="65 results, the most is 64"):
        batches.encode_worker_message(make_results(65))


BATCH = [1, "batch", 3, 5_000_000, FIRST_LEASE, 2, 150, 2_000_000, False]
RESULTS = [1, "results", 3, FIRST_LEASE, 2, None]
ATTACH = [1, "attach", "blue", 0, 3, []]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (1, "results"), (1, 5), (2, -1), (2, True), (2, None), (3, -1), (3, 2**63), (3, True), (3, "1"),
        (4, -1), (4, 2**63), (4, True), (4, "1"), (5, 0), (5, 35), (5, True), (5, 1.0), (6, -1), (6, 1.5), (6, False),
        (7, -1), (7, 2**64 - 1), (7, None), (8, 0), (8, None),
    ],
)  # fmt: skip
def test_a_bad_batch_is_refused(at: int, value: Any) -> None:
    """A worker refuses a header in which any item is not as it must be."""
    with pytest.raises(Malformed) as raised:
        batches.decode_batch(pack([*BATCH[:at], value, *BATCH[at + 1 :]]))
    assert raised.value.message.isprintable()


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (1, "batch"), (1, 5), (2, -1), (2, True), (3, -1), (3, 2**63), (3, True), (3, None), (4, 0), (4, 35), (4, True),
        (5, "no_such_code"), (5, 5), (5, True), (5, ["x"]), (5, {}),
    ],
)  # fmt: skip
def test_bad_results_are_refused(at: int, value: Any) -> None:
    """The router refuses a header in which any item is not as it must be."""
    with pytest.raises(Malformed) as raised:
        batches.decode_worker_message(pack([*RESULTS[:at], value, *RESULTS[at + 1 :]]))
    assert raised.value.message.isprintable()


@pytest.mark.parametrize(
    ("at", "value"), [(2, ""), (2, 5), (2, "a\nb"), (3, -1), (3, True), (4, None), (4, 2**63), (5, None), (5, [1])]
)
def test_a_bad_attach_is_refused(at: int, value: Any) -> None:
    """A worker that does not introduce itself properly is refused."""
    with pytest.raises(Malformed):
        batches.decode_worker_message(pack([*ATTACH[:at], value, *ATTACH[at + 1 :]]))


@pytest.mark.parametrize(
    "plain", [BATCH[:3], BATCH[:4], BATCH[:-1], [*BATCH, 1], [], [1], [1, "batch"], {}, 5, None, "batch"]
)
def test_a_batch_of_the_wrong_length_is_refused(plain: Any) -> None:
    """Entries are complete, and there is at least one."""
    with pytest.raises(Malformed):
        batches.decode_batch(pack(plain))


@pytest.mark.parametrize(
    "plain", [RESULTS[:3], RESULTS[:-1], [*RESULTS, 1], ATTACH[:-1], [*ATTACH, 1], [], {}, 5, None]
)
def test_a_workers_message_of_the_wrong_length_is_refused(plain: Any) -> None:
    """Entries are complete, and there is at least one."""
    with pytest.raises(Malformed):
        batches.decode_worker_message(pack(plain))


@pytest.mark.parametrize("plain", [BATCH, RESULTS, ATTACH])
def test_another_version_is_refused(plain: list[Any]) -> None:
    """A router and a worker of different versions say so."""
    decode = batches.decode_batch if plain is BATCH else batches.decode_worker_message
    with pytest.raises(UnsupportedVersion, match="the message has 2"):
        decode(pack([2, *plain[1:]]))
    with pytest.raises(Malformed, match="v: expected an integer, got a boolean"):
        decode(pack([True, *plain[1:]]))


def test_only_an_attach_may_be_longer_than_a_header() -> None:
    """Results beyond the limit of a header are refused before they are looked at."""
    with pytest.raises(Malformed, match="start otherwise"):
        batches.decode_worker_message(pack([1, "results", 3, "x" * MAX_HEADER_BYTES]))
