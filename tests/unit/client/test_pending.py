"""The table of unanswered requests: what is sent, sent again, given up."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from trtd.client.calls import Form
from trtd.client.pending import MOST_STALE_CHECKS, PendingRequest, PendingRequests, Verdict
from trtd.core.ids import RequestId
from trtd.wire.messages import HealthRequest, InferRequest


def make_request(number: int = 1, *, now: float = 0.0, timeout_s: float = 10.0, grace_s: float = 1.0) -> PendingRequest:
    message = InferRequest(RequestId(number.to_bytes(16, "big")), "m", None, (), timeout_s)
    return PendingRequest(message.id, Form(message), (), now, now + timeout_s, now + timeout_s + grace_s, handle=number)


def make_table(*requests: PendingRequest, is_connected: bool = True) -> PendingRequests:
    table = PendingRequests()
    if is_connected:
        table.connected()
    for request in requests:
        table.add(request)
    return table


def send_all(table: PendingRequests) -> list[Any]:
    sent = []
    while (request := table.next_to_send()) is not None:
        table.sent()
        sent.append(request.handle)
    return sent


def test_nothing_is_sent_without_a_connection():
    """A request waits until there is a connection, and then goes out once."""
    table = make_table(make_request(), is_connected=False)
    assert table.next_to_send() is None
    table.connected()
    assert send_all(table) == [1]
    assert table.next_to_send() is None


def test_a_lost_connection_sends_everything_again_in_order():
    """After a reconnection the unanswered requests go out again in their old order, and no answered one does."""
    table = make_table(*(make_request(number) for number in (1, 2, 3)))
    send_all(table)
    table.answered(RequestId((2).to_bytes(16, "big")))
    table.disconnected()
    table.add(make_request(4))
    table.connected()
    assert send_all(table) == [1, 3, 4]


def test_what_is_sent_again_names_the_time_that_is_left_and_says_so():
    """A request that is sent again carries its remaining time and is marked, and never asks for no time at all."""
    request = make_request(timeout_s=10.0)
    table = make_table(request)
    assert request.message_at(0.0) == request.form.message(request.id)
    send_all(table)
    table.disconnected()
    again = request.message_at(4.0)
    assert isinstance(again, InferRequest)
    assert (again.id, again.timeout_s, again.is_resent) == (request.id, 6.0, True)
    late = request.message_at(11.0)
    assert isinstance(late, InferRequest)
    assert late.timeout_s is not None
    assert late.timeout_s > 0


def test_other_messages_are_sent_again_as_they_are():
    """A message without a deadline is sent again unchanged."""
    message = HealthRequest(RequestId(bytes(16)))
    request = PendingRequest(message.id, Form(message), (), 0.0, 1.0, 2.0, handle=1, send_count=1)
    assert request.message_at(0.5) == message


def test_a_second_answer_belongs_to_nobody():
    """Only the first answer to a request finds it."""
    request = make_request()
    table = make_table(request)
    send_all(table)
    assert table.answered(request.id) is request
    assert table.answered(request.id) is None


def test_a_daemon_that_was_asked_gets_a_grace():
    """A request that is out on a live connection is given up after the grace, so that the daemon answers deadlines."""
    table = make_table(make_request(timeout_s=10.0, grace_s=1.0))
    send_all(table)
    assert table.next_deadline() == 10.0
    assert table.expire(10.0) == []
    assert table.next_deadline() == 11.0
    [(request, verdict)] = table.expire(11.0)
    assert (request.handle, verdict) == (1, Verdict.NOT_ANSWERED)
    assert table.next_deadline() is None


def test_what_was_never_sent_is_given_up_at_its_deadline():
    """Without a connection there is nobody to wait for, and the verdict says whether there ever was one."""
    table = make_table(make_request(), is_connected=False)
    assert [verdict for _, verdict in table.expire(10.0)] == [Verdict.NEVER_CONNECTED]
    table.connected()
    table.add(make_request(2))
    assert [verdict for _, verdict in table.expire(10.0)] == [Verdict.NOT_TAKEN]
    table.add(make_request(3))
    send_all(table)
    table.disconnected()
    assert [verdict for _, verdict in table.expire(10.0)] == [Verdict.DISCONNECTED]
    assert len(table) == 0


def test_answered_requests_leave_no_trace():
    """A thousand answered requests with long timeouts do not make the bookkeeping grow."""
    table = make_table()
    for number in range(1000):
        request = make_request(number)
        table.add(request)
        send_all(table)
        table.answered(request.id)
    assert len(table._checks) <= MOST_STALE_CHECKS + 3


def test_requests_given_up_without_a_connection_leave_no_trace():
    """A client that asks in vain for days holds nothing of the requests that it gave up."""
    table = make_table(is_connected=False)
    for number in range(1000):
        table.add(make_request(number, now=float(number), timeout_s=0.5))
        assert len(table.expire(number + 0.5)) == 1
    assert len(table._unsent) == 0


class Walk(RuleBasedStateMachine):
    """Random events against a plain model: which ids are open, and which of them are out on the present connection."""

    def __init__(self) -> None:
        super().__init__()
        self.table = PendingRequests()
        self.now = 0.0
        self.count = 0
        self.open: dict[RequestId, PendingRequest] = {}
        self.out: set[RequestId] = set()
        self.graced: set[RequestId] = set()
        self.is_connected = False

    def ends_at(self, request_id: RequestId) -> float:
        """When a request is given up: a grace, once it began, goes on though the connection is lost in it."""
        request = self.open[request_id]
        return request.gives_up_at if request_id in self.out | self.graced else request.deadline

    @rule(timeout_s=st.floats(0.1, 5.0))
    def submit(self, timeout_s):
        self.count += 1
        request = make_request(self.count, now=self.now, timeout_s=timeout_s)
        self.table.add(request)
        self.open[request.id] = request

    @rule()
    def connect(self):
        if not self.is_connected:
            self.is_connected = True
            self.table.connected()

    @rule()
    def disconnect(self):
        self.is_connected = False
        self.out.clear()
        self.table.disconnected()

    @rule()
    def send_one(self):
        request = self.table.next_to_send()
        unsent = [each for each in self.open if each not in self.out]
        expected = unsent[0] if unsent and self.is_connected else None
        assert (request.id if request else None) == expected
        if request is not None:
            self.table.sent()
            self.out.add(request.id)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), is_abandoned=st.booleans())
    def end_one(self, data, is_abandoned):
        request_id = data.draw(st.sampled_from(sorted(self.open)))
        if is_abandoned:
            self.table.abandon(request_id)
        else:
            assert self.table.answered(request_id) is self.open[request_id]
        self.open.pop(request_id)
        self.out.discard(request_id)

    @rule(passed_s=st.floats(0.0, 3.0))
    def time_passes(self, passed_s):
        self.now += passed_s
        due = {request_id for request_id in self.open if self.now >= self.ends_at(request_id)}
        self.graced |= {each for each in self.open if each not in due and self.now >= self.open[each].deadline}
        assert {request.id for request, _ in self.table.expire(self.now)} == due
        for request_id in due:
            self.open.pop(request_id)
            self.out.discard(request_id)

    @invariant()
    def the_next_deadline_is_never_late(self):
        deadline = self.table.next_deadline()
        instants = [self.ends_at(request_id) for request_id in self.open]
        assert (deadline is None) == (not instants)
        assert deadline is None or deadline <= min(instants)
        assert len(self.table) == len(self.open)


def test_random_walks():
    """Whatever happens in whatever order, every open request is sent and given up exactly when it has to be."""
    run_state_machine_as_test(Walk, settings=settings(max_examples=100, stateful_step_count=40, deadline=None))
