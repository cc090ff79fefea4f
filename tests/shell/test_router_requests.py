"""Requests through a real router: answered once, queued, leased, replayed, expired, refused."""

from __future__ import annotations

import os
import uuid

import pytest

from tests.support.batches import ResultEntry
from tests.support.router import MODEL
from trtd.child.stream import StreamClosed
from trtd.core.dispatch import TenantLimits
from trtd.core.faults import Fault, FaultKind
from trtd.errors import ErrorCode
from trtd.wire import codec, control
from trtd.wire.messages import DescribeAnswer, DescribeRequest, ErrorAnswer, HealthAnswer, HealthRequest, InferAnswer


def test_a_request_is_answered(bench):
    """A request reaches the worker with its frames untouched, and the worker's answer its client."""
    worker = bench.worker()
    client = bench.client()
    request_id = client.ask(b"\x00\x01\x02")
    batch, requests = worker.receive()
    assert batch.generation == 1
    assert requests[0][1] == b"\x00\x01\x02"
    worker.answer(batch, requests)
    answer, frames = client.receive()
    assert isinstance(answer, InferAnswer)
    assert answer.id == request_id
    assert frames == [b"\x00\x01\x02"]
    stats = bench.router.stats("a", lambda it: it.answered == 1)
    assert (stats.accepted, stats.failed, stats.queued, stats.leased) == (1, 0, 0, 0)
    assert stats.outcomes == (("m", "ok", 1),)


def test_a_request_waits_for_its_worker(bench):
    """A tenant without a worker queues; its first worker gets everything that waits, in one message."""
    client = bench.client()
    asked = {client.ask() for _ in range(10)}
    bench.router.stats("a", lambda it: it.queued == 10)
    worker = bench.worker()
    batch, requests = worker.receive()
    assert len(batch.entries) == 10
    worker.answer(batch, requests)
    assert {client.receive()[0].id for _ in range(10)} == asked


def test_a_worker_that_attached_before_it_was_admitted_gets_work(bench):
    """The worker's word may come before the supervisor's."""
    worker = bench.stranger()
    worker.attach()
    client = bench.client()
    client.ask()
    assert not worker.has_work(0.2)
    bench.router.tell(worker.admitted)
    worker.serve(1)
    assert isinstance(client.receive()[0], InferAnswer)


def test_a_worker_with_another_pid_gets_nothing(bench):
    """A connection whose process is not the one that the supervisor started is given no work."""
    impostor = bench.stranger()
    bench.router.tell(control.WorkerAdmitted(*impostor.id, pid=os.getpid() + 1))
    impostor.attach()
    bench.client().ask()
    assert not impostor.has_work(0.3)


def test_the_leases_of_a_revoked_worker_go_to_its_successor(bench):
    """What a dead worker held is answered by the next generation, and the dead one is not heard any more."""
    first = bench.worker()
    client = bench.client()
    request_id = client.ask()
    batch, requests = first.receive()
    bench.router.tell(control.WorkerRevoked(*first.id, fault=Fault(FaultKind.KILLED, "killed by SIGKILL")))
    second = bench.worker(generation=2)
    again, requests_again = second.receive()
    assert again.entries[0].lease != batch.entries[0].lease
    with pytest.raises(StreamClosed):
        first.answer(batch, requests)
    second.answer(again, requests_again)
    answer, _ = client.receive()
    assert isinstance(answer, InferAnswer)
    assert (answer.id, answer.generation) == (request_id, 2)
    assert bench.router.stats("a", lambda it: it.answered == 1).replayed == 1


def test_a_lost_connection_alone_gives_nothing_to_others(bench):
    """What a worker holds stays its own until the supervisor says that it died; then its request is a suspect."""
    first, client = bench.worker(), bench.client()
    client.ask()
    first.receive()
    first.close()
    second = bench.worker(replica=1)
    assert not second.has_work(0.2)
    bench.router.tell(control.WorkerRevoked(*first.id, fault=Fault(FaultKind.CRASHED, "crashed with SIGSEGV")))
    successor = bench.worker(generation=2)
    again, requests = successor.receive()
    assert again.entries[0].must_run_alone
    successor.answer(again, requests)
    assert isinstance(client.receive()[0], InferAnswer)


def test_a_worker_that_connects_again_is_given_its_requests_again(bench):
    """A second Attach of the same life means that the first connection is gone: its leases are handed out anew."""
    worker = bench.worker()
    client = bench.client()
    client.ask()
    batch, requests = worker.receive()
    worker.reconnect()
    worker.attach()
    again, _ = worker.receive()
    assert again.entries[0].lease != batch.entries[0].lease
    worker.answer(again, requests)
    assert isinstance(client.receive()[0], InferAnswer)
    worker.answer(batch, requests)
    assert not client.has_answer(0.2)


def test_a_worker_whose_connection_is_gone_keeps_nothing(bench):
    """Work for a worker that cannot be reached goes to another one, though nobody declared it dead."""
    gone = bench.worker(replica=0)
    client = bench.client()
    client.ask()
    gone.serve(1)
    client.receive()
    connected = bench.router.socket_count()
    gone.close()
    bench.router.wait_until(lambda: bench.router.socket_count() < connected)
    asked = {client.ask() for _ in range(4)}
    other = bench.worker(replica=1)
    other.serve(4)
    assert {client.receive()[0].id for _ in range(4)} == asked


def test_a_deadline_is_answered_while_the_worker_is_busy(bench):
    """A request gets its typed error when its time is up, wherever it is; a late result is dropped."""
    worker = bench.worker()
    client = bench.client()
    request_id = client.ask(timeout_s=0.2)
    batch, requests = worker.receive()
    answer, _ = client.receive()
    assert isinstance(answer, ErrorAnswer)
    assert (answer.id, answer.code) == (request_id, ErrorCode.DEADLINE_EXCEEDED)
    worker.answer(batch, requests)
    assert not client.has_answer(0.2)
    assert bench.router.stats("a", lambda it: it.stale == 1).expired == 1


def test_a_full_queue_refuses_at_the_door(bench):
    """Beyond the tenant's bound a request is refused as overloaded, and the accepted ones stay accepted."""
    bench.tenant(limits=TenantLimits(max_requests=3))
    client = bench.client()
    asked = [client.ask() for _ in range(5)]
    refused = [client.receive()[0] for _ in range(2)]
    assert {answer.id for answer in refused} == set(asked[3:])
    assert {answer.code for answer in refused} == {ErrorCode.OVERLOADED}
    bench.worker().serve(3)
    assert {client.receive()[0].id for _ in range(3)} == set(asked[:3])


def test_a_resent_request_is_answered_once_and_on_the_new_connection(bench):
    """A client that comes back with the same id gets the one answer at its newest connection."""
    worker = bench.worker()
    lost = bench.client()
    request_id = lost.ask()
    batch, requests = worker.receive()
    connected = bench.router.socket_count()
    lost.close()
    bench.router.wait_until(lambda: bench.router.socket_count() < connected)
    client = bench.client()
    client.ask(id=request_id, is_resent=True)
    bench.router.stats("a", lambda it: it.resent == 1)
    worker.answer(batch, requests)
    assert client.receive()[0].id == request_id
    assert not client.has_answer(0.2)


def test_an_answer_to_a_client_that_is_gone_is_counted(bench):
    """An answer that nobody waits for is dropped, counted, and holds nothing up."""
    worker = bench.worker()
    gone = bench.client()
    gone.ask()
    batch, requests = worker.receive()
    connected = bench.router.socket_count()
    gone.close()
    bench.router.wait_until(lambda: bench.router.socket_count() < connected)
    client = bench.client()
    client.ask()
    worker.serve(1)
    assert isinstance(client.receive()[0], InferAnswer)
    worker.answer(batch, requests)
    assert bench.router.stats("a", lambda it: it.answered == 2).undeliverable == 1


def test_a_slow_reader_gets_every_answer(bench):
    """Answers that a client does not read at once are kept for it, more of them than ZeroMQ holds."""
    count, payload = 300, bytes(64 * 1024)
    worker = bench.worker()
    client = bench.client(rcvhwm=1, rcvbuf=4096)
    quick = bench.client()
    asked = set()
    for _ in range(count // 50):
        asked |= {client.ask(payload) for _ in range(50)}
        worker.serve(50)
    quick.ask()
    worker.serve(1)
    assert isinstance(quick.receive()[0], InferAnswer)
    assert {client.receive()[0].id for _ in range(count)} == asked
    assert bench.router.stats("a", lambda it: it.answered == count + 1).undeliverable == 0


def test_a_typed_refusal_of_a_worker_is_counted_under_its_code(bench):
    """The router passes a worker's error on unread and counts it by its code."""
    worker = bench.worker()
    client = bench.client()
    request_id = client.ask()
    batch, _ = worker.receive()
    error = codec.encode_router_message(ErrorAnswer(request_id, ErrorCode.INVALID_INPUT, "no"))
    worker.send_results([ResultEntry(batch.entries[0].lease, 1, ErrorCode.INVALID_INPUT)], [error])
    answer, _ = client.receive()
    assert isinstance(answer, ErrorAnswer)
    assert answer.code == ErrorCode.INVALID_INPUT
    assert bench.router.stats("a", lambda it: it.answered == 1).outcomes == (("m", "invalid_input", 1),)


def test_the_models_are_described(bench):
    """A client learns what the tenant's workers serve, also while none is there; an unknown name is a typed error."""
    client = bench.client()
    client.send(codec.encode_client_message(DescribeRequest(uuid.uuid4().bytes)))
    early, _ = client.receive()
    assert isinstance(early, ErrorAnswer)
    assert early.code == ErrorCode.UNAVAILABLE
    worker = bench.worker()
    client.ask()
    worker.serve(1)
    client.receive()
    bench.router.tell(control.WorkerRevoked(*worker.id, fault=Fault(FaultKind.KILLED, "killed")))
    client.send(codec.encode_client_message(DescribeRequest(uuid.uuid4().bytes, "m")))
    answer, _ = client.receive()
    assert isinstance(answer, DescribeAnswer)
    assert answer.models == (MODEL,)
    client.send(codec.encode_client_message(DescribeRequest(uuid.uuid4().bytes, "other")))
    unknown, _ = client.receive()
    assert isinstance(unknown, ErrorAnswer)
    assert unknown.code == ErrorCode.UNKNOWN_MODEL


def test_health_follows_what_the_supervisor_says(bench):
    """Waiting without a worker, ready with one, unavailable or draining as told."""
    client = bench.client()

    def state() -> str:
        client.send(codec.encode_client_message(HealthRequest(uuid.uuid4().bytes)))
        answer, _ = client.receive()
        assert isinstance(answer, HealthAnswer)
        assert answer.is_ready == (answer.state == "ready")
        assert bool(answer.reason) != answer.is_ready
        return answer.state

    assert state() == "waiting"
    worker = bench.worker()
    client.ask()
    worker.serve(1)
    client.receive()
    assert state() == "ready"
    bench.router.tell(
        control.WorkerRevoked(*worker.id, fault=Fault(FaultKind.KILLED, "killed")), control.AskUnfinished("a")
    )
    bench.router.expect(control.Unfinished)
    assert state() == "waiting"
    bench.router.tell(control.AvailabilitySet("a", False, "no luck", 3.0))
    bench.router.tell(control.AskUnfinished("a"))
    bench.router.expect(control.Unfinished)
    assert state() == "unavailable"
    bench.router.tell(control.GateSet("a", False, 2))
    bench.router.expect(control.TenantIsEmpty)
    assert state() == "draining"
