"""Messages between router and worker as objects, so that tests compare them; written and read by what both use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trtd.core.ids import LeaseId
from trtd.wire import batches
from trtd.wire.messages import Attach


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One request in a message to a worker.

    Attributes:
        lease: the router's number for it.
        frame_count: frames of this request, its header included.
        queue_us: how long it waited in the router.
        remaining_us: time left until its deadline when it was sent.
        must_run_alone: it is suspected of ending workers; run it in a batch of its own group only.
    """

    lease: LeaseId
    frame_count: int
    queue_us: int
    remaining_us: int
    must_run_alone: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Router to worker: requests, leased to this generation.

    Attributes:
        generation: the worker's.
        entries: one for each request.
        sent_at_us: CLOCK_MONOTONIC of the host, which both share, when the message was sent; the times of the entries
            count from then, so that a message that waits for a busy worker does not gain time.
    """

    generation: int
    entries: tuple[BatchEntry, ...]
    sent_at_us: int = 0


@dataclass(frozen=True, slots=True)
class ResultEntry:
    """One answer in a message from a worker; `code` is None for a result, else an `ErrorCode`."""

    lease: LeaseId
    frame_count: int
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """Worker to router: answers of this generation."""

    generation: int
    entries: tuple[ResultEntry, ...]


def encode_batch(batch: Batch) -> bytes:
    """The header frame of a batch."""
    items: list[Any] = []
    for entry in batch.entries:
        items += entry.lease, entry.frame_count, entry.queue_us, entry.remaining_us, entry.must_run_alone
    return batches.encode_batch_items(batch.generation, batch.sent_at_us, items)


def decode_batch(header: bytes | memoryview) -> Batch:
    """A batch from its header frame."""
    generation, sent_at_us, items = batches.decode_batch_items(header)
    fields = (items[at :: batches.BATCH_ITEMS] for at in range(batches.BATCH_ITEMS))
    return Batch(generation, tuple(map(BatchEntry, *fields)), sent_at_us)


def encode_worker_message(message: Attach | Results) -> bytes:
    """The header frame of a worker's message."""
    if isinstance(message, Attach):
        return batches.encode_attach(message)
    items: list[Any] = []
    for entry in message.entries:
        items += entry.lease, entry.frame_count, entry.code
    return batches.encode_results_items(message.generation, items)


def decode_worker_message(header: bytes | memoryview) -> Attach | Results:
    """A worker's message from its header frame."""
    message = batches.decode_worker_items(header)
    if isinstance(message, Attach):
        return message
    generation, leases, frame_counts, codes = message
    return Results(generation, tuple(map(ResultEntry, leases, frame_counts, codes)))
