"""The router's messages as jobs: a request that looks like the one before is read as if it came alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.batches import Batch, BatchEntry, encode_batch
from tests.support.served import make_served, read_answers
from trtd.core.batching import Batcher
from trtd.core.ids import LeaseId, RequestId
from trtd.errors import Malformed, UnsupportedVersion
from trtd.runtime import open_runtime
from trtd.wire.batches import encode_arena_message
from trtd.wire.codec import encode_client_message
from trtd.wire.messages import ArenaOpened, Dtype, InferRequest, TensorContract, TensorSpec
from trtd.worker.answers import Job
from trtd.worker.arenas import Arenas
from trtd.worker.intake import Intake
from trtd.worker.validate import Catalogue

CATALOGUE = Catalogue(
    [make_served(), make_served(TensorContract("x", Dtype.BOOL, (None, 4)), name="bools"), make_served(name="other")]
)
ROW = np.arange(4, dtype=np.float32).tobytes()


def request(number: int, model: str = "m", items: int = 1, dtype: Dtype = Dtype.FLOAT32) -> bytes:
    asked = InferRequest(RequestId(number.to_bytes(16, "big")), model, None, (TensorSpec("x", dtype, (items, 4)),))
    return encode_client_message(asked)


KINDS = [
    lambda number: [request(number), ROW],
    lambda number: [request(number), ROW[::-1]],
    lambda number: [request(number, model="other"), ROW],
    lambda number: [request(number, items=2), ROW * 2],
    lambda number: [request(number, "bools", dtype=Dtype.BOOL), b"\x00\x01\x01\x00"],
    lambda number: [request(number, "bools", dtype=Dtype.BOOL), b"\x00\x01\x02\x00"],
    lambda number: [request(number), ROW[:-1]],
    lambda number: [request(number), ROW, ROW],
    lambda number: [request(number)],
    lambda number: [request(number)[:-1], ROW],
    lambda number: [b"\x81" + request(number)[1:], ROW],
    lambda number: [request(number, model="none"), ROW],
    lambda _: [b"", ROW],
]


def accept(intake: Intake, requests: list[list[bytes]], first_lease: int = 0) -> dict[int, Any]:
    """What becomes of the requests of one message, by their leases."""
    entries = [BatchEntry(LeaseId(first_lease + at), len(one), 5, 10**6, False) for at, one in enumerate(requests)]
    frames = [encode_batch(Batch(1, tuple(entries), 10_000_000)), *[frame for one in requests for frame in one]]
    batcher: Batcher[Job] = Batcher()
    intake.accept([memoryview(frame) for frame in frames], batcher, 10.0)
    made: dict[int, Any] = {one.lease: (one.code, one.frames) for one in read_answers(intake.refusals)}
    while (batch := batcher.take(10.0)) is not None:
        for job in batch:
            arrays = {name: (array.tobytes(), array.shape, array.dtype) for name, array in job.inputs.items()}
            made[job.lease] = (job.id, job.model, job.group, job.items, job.arrived_at, job.expires_at, arrays)
    return made


def make_intake() -> Intake:
    return Intake(CATALOGUE, 1, Arenas(open_runtime("scripted", threads=1)), lambda: None)


@settings(deadline=None)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=12))
def test_requests_are_read_together_as_they_are_alone(kinds):
    """Good and bad requests in any order in one message end as each does by itself, at a worker that has seen none."""
    requests = [kind(number) for number, kind in enumerate(kinds)]
    alone = {}
    for at, one in enumerate(requests):
        alone |= accept(make_intake(), [one], at)
    intake = make_intake()
    assert accept(intake, requests) == alone
    assert accept(intake, requests) == alone


ENTRY = BatchEntry(LeaseId(1), 2, 5, 10**6, False)
BATCH = encode_batch(Batch(1, (ENTRY,), 0))
UNREADABLE = {
    "no frame": [],
    "an empty frame": [b""],
    "noise": [b"\xc1nonsense"],
    "noise with frames": [b"\xc1nonsense", request(1), ROW],
    "another generation": [encode_batch(Batch(2, (ENTRY,), 0)), request(1), ROW],
    "a batch without its frames": [BATCH],
    "a frame too few": [BATCH, request(1)],
    "a frame too many": [BATCH, request(1), ROW, ROW],
    "a batch cut short": [BATCH[:-1], request(1), ROW],
    "an arena of another version": [encode_arena_message(ArenaOpened(1, 64)).replace(b"\x94\x01", b"\x94\x02")],
}


@pytest.mark.parametrize("frames", UNREADABLE.values(), ids=UNREADABLE)
def test_a_message_that_cannot_be_read_is_not_passed_over(frames):
    """Nobody knows whose requests it had, so it is an error of the whole worker, and nothing of it runs."""
    batcher: Batcher[Job] = Batcher()
    with pytest.raises((Malformed, UnsupportedVersion)):
        make_intake().accept([memoryview(frame) for frame in frames], batcher, 10.0)
    assert not batcher
