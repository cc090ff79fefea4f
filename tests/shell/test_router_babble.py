"""A worker whose message the router cannot read is heard no more and told of, and no request waits for it in vain."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.batches import ResultEntry
from tests.support.router import StandInWorker
from trtd.child.stream import READ_BYTES, StreamClosed
from trtd.core.dispatch import TenantLimits
from trtd.core.faults import Fault, FaultKind
from trtd.errors import ErrorCode
from trtd.wire import control, packing
from trtd.wire.batches import RESULTS_BYTES, max_results_bytes
from trtd.wire.messages import ErrorAnswer, InferAnswer
from trtd.wire.settings import DEFAULT_MAX_ANSWER_BYTES

BABBLE: dict[str, Callable[[StandInWorker, ResultEntry, list[bytes]], None]] = {
    "noise for a header": lambda worker, *_: worker.end.send([b"garbage", b"more"]),
    "no header": lambda worker, *_: worker.end.send([]),
    "a header too long": lambda worker, *_: worker.end.send([bytes(1 << 20)]),
    "a frame too few": lambda worker, entry, frames: worker.send_results([entry], frames[1:]),
    "another generation": lambda worker, entry, frames: worker.send_results([entry], frames, generation=7),
    "who it is, twice": lambda worker, *_: worker.attach(),
    "noise for a stream": lambda worker, *_: worker.end.send_bytes(b"\xff" * 64),
    "more than it was told it may": lambda worker, *_: worker.end.send_bytes(
        packing.HEAD.pack(packing.MAGIC, 1, max_results_bytes(DEFAULT_MAX_ANSWER_BYTES) + 1) + bytes(READ_BYTES)
    ),
    "no end": lambda worker, *_: worker.end.send_bytes(
        packing.HEAD.pack(packing.MAGIC, 1, 1 << 40) + bytes(READ_BYTES)
    ),
}


def hold_one(worker: StandInWorker) -> tuple[ResultEntry, list[bytes]]:
    """Take one request; its answer, not sent yet."""
    batch, (request,) = worker.receive()
    return ResultEntry(batch.entries[0].lease, len(request)), worker.echo(request)


def replace(bench: Any, told: control.WorkerMisbehaved) -> StandInWorker:
    """What the supervisor does with a worker that makes no sense: the next life of it."""
    life = told.tenant, told.replica, told.generation
    bench.router.tell(control.WorkerRevoked(*life, fault=Fault(FaultKind.MISBEHAVED, "made no sense")))
    worker: StandInWorker = bench.worker(told.tenant, replica=told.replica, generation=told.generation + 1)
    return worker


@pytest.mark.parametrize("babble", BABBLE.values(), ids=BABBLE)
def test_what_a_worker_held_that_makes_no_sense_is_answered_by_its_successor(bench, babble):
    """The supervisor is told of it, and once it has replaced the worker the request runs apart, as a suspect."""
    worker, client = bench.worker(), bench.client()
    request_id = client.ask()
    babble(worker, *hold_one(worker))
    told = bench.router.expect(control.WorkerMisbehaved)
    assert (told.tenant, told.replica, told.generation) == worker.id
    assert told.reason
    successor = replace(bench, told)
    batch, requests = successor.receive()
    assert batch.entries[0].must_run_alone
    successor.answer(batch, requests)
    answer, _ = client.receive()
    assert isinstance(answer, InferAnswer)
    assert (answer.id, answer.generation) == (request_id, 2)


def test_a_worker_that_makes_no_sense_is_not_heard_again_in_this_life(bench):
    """What it says next is not read, and though it connects again it is given nothing."""
    worker, client = bench.worker(), bench.client()
    client.ask()
    entry, frames = hold_one(worker)
    worker.end.send([b"garbage"])
    bench.router.expect(control.WorkerMisbehaved)
    worker.reconnect()
    worker.attach()
    worker.send_results([entry], frames)
    assert not worker.has_work(0.3)
    assert not client.has_answer(0)


def test_a_request_whose_workers_all_make_no_sense_is_answered(bench):
    """The attempts count: after a few lives the client gets a typed error, long before the deadline."""
    bench.tenant("a", limits=TenantLimits(max_attempts=2))
    worker, client = bench.worker(), bench.client()
    client.ask()
    for _ in range(2):
        hold_one(worker)
        worker.end.send([b"garbage"])
        worker = replace(bench, bench.router.expect(control.WorkerMisbehaved))
    answer, _ = client.receive()
    assert isinstance(answer, ErrorAnswer)
    assert answer.code in {ErrorCode.WORKER_LOST, ErrorCode.POISONOUS}


def test_a_worker_whose_attach_makes_no_sense_is_told_of(bench):
    """A process that the supervisor has named does not wait for ever to be understood."""
    worker = bench.stranger()
    bench.router.tell(worker.admitted)
    worker.end.send([b"let me in"])
    told = bench.router.expect(control.WorkerMisbehaved)
    assert (told.tenant, told.replica, told.generation) == worker.id


def test_results_for_a_former_router_are_dropped(bench):
    """A worker may go on answering until the supervisor names it to the new router; that is no misbehaviour."""
    worker, client = bench.stranger(), bench.client()
    worker.attach()
    worker.send_results([ResultEntry(7, 1)], [b"of no use"])
    # An answer to a request that was sent later: by then the router has read them.
    bench.tenant("b")
    other, client_of_other = bench.worker("b"), bench.client("b")
    client_of_other.ask()
    other.serve(1)
    client_of_other.receive()
    bench.router.tell(worker.admitted)
    client.ask()
    worker.serve(1)
    assert isinstance(client.receive()[0], InferAnswer)


def test_each_life_is_held_to_what_it_was_told(bench):
    """After a reload an old worker may still answer as largely as it was told, whatever its successor may."""
    worker, client = bench.stranger(), bench.client()
    bench.router.tell(dataclasses.replace(worker.admitted, max_answer_bytes=8 * RESULTS_BYTES))
    worker.attach()
    client.ask()
    entry, (header, _) = hold_one(worker)
    worker.send_results([entry], [header, bytes(8 * RESULTS_BYTES)])
    _, (frame,) = client.receive()
    assert len(frame) == 8 * RESULTS_BYTES
    bench.router.tell(control.WorkerRevoked(*worker.id, fault=Fault(FaultKind.REQUESTED, "replaced")))
    successor = bench.stranger(generation=2)
    bench.router.tell(dataclasses.replace(successor.admitted, max_answer_bytes=4096))
    successor.attach()
    client.ask()
    entry, (header, _) = hold_one(successor)
    with contextlib.suppress(StreamClosed):
        successor.send_results([entry], [header, bytes(8 * RESULTS_BYTES)])
    assert "too long" in bench.router.expect(control.WorkerMisbehaved).reason
