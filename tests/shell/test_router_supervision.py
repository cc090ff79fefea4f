"""A real router and its supervisor: life signs, numbers, drains, changes, and how it ends."""

from __future__ import annotations

import contextlib
import signal

import pytest

from tests.support.router import PATIENCE_S, make_endpoint
from trtd.child.stream import StreamClosed
from trtd.core.dispatch import TenantLimits
from trtd.core.faults import Fault, FaultKind
from trtd.errors import ErrorCode, ExitCode
from trtd.wire import control
from trtd.wire.messages import ErrorAnswer, InferAnswer


def test_life_signs_show_progress(bench):
    """Beats come by themselves, and their progress grows with the turns of the loop."""
    first = bench.router.expect(control.RouterBeat)
    second = bench.router.expect(control.RouterBeat, lambda beat: beat.progress > first.progress)
    assert second.generation == 1
    assert second.rss_bytes > 1024 * 1024


def test_numbers_come_once_when_nothing_changes(bench):
    """A tenant's numbers are told when they have changed, and not again."""
    bench.client().ask()
    bench.router.stats("a", lambda it: it.queued == 1)
    with pytest.raises(AssertionError, match="no RouterStats"):
        bench.router.expect(control.RouterStats, lambda it: it.stats.queued == 1, timeout_s=1.5)


def test_a_drain_finishes_what_was_accepted(bench):
    """With a closed gate new requests are refused, accepted ones finish, and emptiness is announced after the last."""
    worker = bench.worker()
    client = bench.client()
    accepted = client.ask()
    batch, requests = worker.receive()
    bench.router.tell(control.GateSet("a", False, 7), control.AskUnfinished("a"))
    unfinished = bench.router.expect(control.Unfinished)
    assert (unfinished.request_ids, unfinished.total) == ((accepted.hex(),), 1)
    refused = client.ask()
    answer, _ = client.receive()
    assert isinstance(answer, ErrorAnswer)
    assert (answer.id, answer.code) == (refused, ErrorCode.DRAINING)
    worker.answer(batch, requests)
    assert bench.router.expect(control.TenantIsEmpty) == control.TenantIsEmpty("a", 7)
    assert client.receive()[0].id == accepted
    assert bench.router.stats("a", lambda it: it.answered == 1).leased == 0


def test_the_last_numbers_come_before_the_announcement(bench):
    """When a tenant is announced as empty, the numbers told before count its last answer."""
    worker = bench.worker()
    client = bench.client()
    client.ask()
    batch, requests = worker.receive()
    bench.router.tell(control.GateSet("a", False, 2))
    worker.answer(batch, requests)
    told = []
    bench.router.expect(control.TenantIsEmpty, seen=told.append)
    stats = [message.stats for message in told if isinstance(message, control.RouterStats)]
    assert stats[-1].answered == 1


def test_an_open_gate_takes_requests_again(bench):
    """A drained tenant serves again when its gate is opened."""
    bench.router.tell(control.GateSet("a", False, 2))
    bench.router.expect(control.TenantIsEmpty)
    bench.router.tell(control.GateSet("a", True, 3))
    client = bench.client()
    client.ask()
    bench.worker().serve(1)
    assert isinstance(client.receive()[0], InferAnswer)


def test_an_unavailable_tenant_fails_its_requests(bench):
    """What waits and what comes is answered with the reason and the time after which a retry can help."""
    client = bench.client()
    waiting = client.ask()
    bench.router.stats("a", lambda it: it.queued == 1)
    bench.router.tell(control.AvailabilitySet("a", False, "the model is broken", 12.0))
    for expected in (waiting, client.ask):
        request_id = expected() if callable(expected) else expected
        answer, _ = client.receive()
        assert isinstance(answer, ErrorAnswer)
        assert (answer.id, answer.code, answer.retry_after_s) == (request_id, ErrorCode.UNAVAILABLE, 12.0)
        assert "the model is broken" in answer.message


def test_a_closed_worker_is_announced_when_it_is_empty(bench):
    """A worker that shall leave gets nothing new and is announced with its last answer, or at once without a lease."""
    worker = bench.worker()
    client = bench.client()
    client.ask()
    batch, requests = worker.receive()
    bench.router.tell(control.WorkerClosed(*worker.id))
    client.ask()
    assert not worker.has_work(0.2)
    worker.answer(batch, requests)
    assert bench.router.expect(control.WorkerIsEmpty) == control.WorkerIsEmpty(*worker.id)
    bench.router.tell(control.WorkerClosed("a", 5, 1))
    assert bench.router.expect(control.WorkerIsEmpty) == control.WorkerIsEmpty("a", 5, 1)
    bench.worker(generation=2).serve(1)


def test_a_worker_that_was_set_aside_comes_back(bench):
    """What a stopped worker holds goes to its sibling, its late answer counts for nothing, and it may connect again."""
    stopped = bench.worker()
    client = bench.client()
    request_id = client.ask()
    late = stopped.receive()
    bench.router.tell(control.WorkerSetAside(*stopped.id))
    sibling = bench.worker(replica=1)
    batch, requests = sibling.receive()
    with contextlib.suppress(StreamClosed):
        stopped.answer(*late)
    sibling.answer(batch, requests)
    assert client.receive()[0].id == request_id
    stopped.reconnect()
    stopped.attach()
    bench.router.tell(control.WorkerClosed(*sibling.id))
    client.ask()
    stopped.serve(1)
    assert isinstance(client.receive()[0], InferAnswer)
    assert bench.router.stats("a", lambda it: it.answered == 2).failed == 0


def test_a_forgotten_tenant_is_closed(bench):
    """Its requests get a typed error, its socket vanishes, and other tenants go on."""
    bench.tenant("b")
    client = bench.client()
    request_id = client.ask()
    bench.router.stats("a", lambda it: it.queued == 1)
    bench.router.tell(control.TenantForgotten("a"))
    answer, _ = client.receive()
    assert isinstance(answer, ErrorAnswer)
    assert answer.id == request_id
    bench.router.wait_until(lambda: not (bench.directory / "a.sock").exists())
    other = bench.client("b")
    other.ask()
    bench.worker("b").serve(1)
    assert isinstance(other.receive()[0], InferAnswer)


def test_a_tenant_can_come_back_at_once(bench):
    """Forgotten and configured again in one breath, a tenant listens at the same address."""
    endpoint = make_endpoint(bench.directory)
    for _ in range(20):
        bench.router.tell(control.TenantForgotten("a"))
        bench.router.open_tenant(endpoint)
    client = bench.client()
    client.ask()
    bench.worker().serve(1)
    assert isinstance(client.receive()[0], InferAnswer)
    assert (bench.directory / "a.sock").exists()


def test_an_address_can_change(bench):
    """A tenant that is configured with another address listens there, and no more at the former one."""
    bench.tenant(address=f"ipc://{bench.directory}/moved/here.sock")
    moved = bench.connect(f"ipc://{bench.directory}/moved/here.sock")
    moved.ask()
    bench.worker().serve(1)
    assert isinstance(moved.receive()[0], InferAnswer)
    assert not (bench.directory / "a.sock").exists()


def test_a_taken_address_is_tried_again(bench, tmp_path):
    """An endpoint that cannot be opened harms nothing else, and is opened when its place is free."""
    blocker = tmp_path / "blocked"
    blocker.write_text("a file where a directory ought to be")
    bench.tenant("b", address=f"ipc://{blocker}/b.sock")
    client = bench.client()
    client.ask()
    bench.worker().serve(1)
    assert isinstance(client.receive()[0], InferAnswer)
    blocker.unlink()
    late = bench.connect(f"ipc://{blocker}/b.sock")
    late.ask()
    bench.worker("b").serve(1)
    assert isinstance(late.receive()[0], InferAnswer)


def test_limits_change_live(bench):
    """New limits count for the next request, on connections that exist."""
    client = bench.client()
    client.ask()
    bench.router.stats("a", lambda it: it.queued == 1)
    bench.tenant(limits=TenantLimits(max_requests=1))
    bench.router.tell(control.AskUnfinished("a"))
    bench.router.expect(control.Unfinished)
    client.ask()
    answer, _ = client.receive()
    assert isinstance(answer, ErrorAnswer)
    assert answer.code == ErrorCode.OVERLOADED


def test_messages_that_are_nonsense_change_nothing(bench):
    """What the router does not understand on its channel, or what is not for it, is logged and left out."""
    bench.router.tell(
        control.WorkerRevoked("nobody", 0, 1, Fault(FaultKind.KILLED, "x")),
        control.GateSet("nobody", True, 1),
        control.TenantForgotten("nobody"),
        control.PoisonReleased("nobody"),
        control.AskUnfinished("nobody"),
        control.TenantIsEmpty("a", 1),  # type: ignore[arg-type]  # a child's message, on purpose
    )
    assert bench.router.expect(control.Unfinished) == control.Unfinished("nobody", (), 0)
    client = bench.client()
    client.ask()
    bench.worker().serve(1)
    assert isinstance(client.receive()[0], InferAnswer)


def test_stop_lets_the_last_answers_out(bench):
    """After Stop the router finishes what it holds, delivers it, and exits with 0."""
    worker = bench.worker()
    client = bench.client()
    accepted = client.ask(bytes(512 * 1024))
    batch, requests = worker.receive()
    bench.router.tell(control.Stop(), control.AskUnfinished("a"))
    assert bench.router.expect(control.Unfinished).total == 1
    worker.answer(batch, requests)
    assert bench.router.wait_exit() == ExitCode.OK
    assert client.receive()[0].id == accepted


def test_answers_on_their_way_survive_the_end(bench):
    """Answers that were sent but not read when the router is stopped still reach their client."""
    count = 20
    worker = bench.worker()
    client = bench.client(rcvhwm=1, rcvbuf=4096)
    asked = {client.ask(bytes(256 * 1024)) for _ in range(count)}
    worker.serve(count)
    bench.router.tell(control.GateSet("a", False, 2))
    bench.router.expect(control.TenantIsEmpty)
    bench.router.tell(control.Stop())
    assert {client.receive()[0].id for _ in range(count)} == asked
    assert bench.router.wait_exit() == ExitCode.OK


def test_a_closed_channel_ends_the_router(bench):
    """A router whose supervisor is gone does not live on."""
    bench.router.channel.close()
    assert bench.router.wait_exit() == ExitCode.TEMPORARY


def test_too_much_memory_ends_the_router(bench):
    """Above its limit on resident memory the router leaves, to be replaced."""
    router = bench.start()
    rss_bytes = router.expect(control.RouterBeat).rss_bytes
    bench.start(memory_limit_bytes=rss_bytes // 2)
    assert bench.router.wait_exit() == ExitCode.TEMPORARY


def test_a_supervisor_that_does_not_read_stops_nothing(bench):
    """While the channel is full, requests are answered, and what has to arrive arrives later."""
    worker = bench.worker()
    client = bench.client()
    for _ in range(3):
        client.ask()
        worker.serve(1)
        assert isinstance(client.receive()[0], InferAnswer)
    for epoch in range(2, 2002):
        if not bench.router.channel.send(control.GateSet("a", False, epoch)):
            break
    bench.router.tell_patiently(control.GateSet("a", False, 5000))
    client.ask()
    assert isinstance(client.receive()[0], ErrorAnswer)
    bench.router.expect(control.TenantIsEmpty, lambda message: message.epoch == 5000)


def test_signals_are_the_supervisors_business(bench):
    """SIGTERM and SIGINT, as a terminal or init sends them to all, do not end the router."""
    for number in (signal.SIGTERM, signal.SIGINT):
        bench.router.process.send_signal(number)
    beat = bench.router.expect(control.RouterBeat)
    bench.router.expect(control.RouterBeat, lambda it: it.progress > beat.progress)


def test_a_successor_takes_over(bench):
    """Killed with SIGKILL and started again, the router serves the same clients and workers at the same addresses."""
    worker = bench.worker()
    client = bench.client()
    request_id = client.ask()
    batch, requests = worker.receive()
    bench.start(generation=2)
    bench.tenant()
    bench.router.tell(worker.admitted)
    worker.reconnect()
    worker.attach()
    client.ask(id=request_id, is_resent=True)
    again, requests_again = worker.receive()
    assert again.entries[0].lease >> 32 != batch.entries[0].lease >> 32
    worker.answer(batch, requests)
    assert bench.router.stats("a", lambda it: it.stale == 1).answered == 0
    worker.answer(again, requests_again)
    assert client.receive(PATIENCE_S)[0].id == request_id
    assert not client.has_answer(0.2)
