"""Any sequence of events: the dispatcher's own accounts hold, and an observer from outside finds no promise broken."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.desk import CRASHED, REQUESTED, make_request, payload_digest
from tests.support.history import History
from trtd.core.dispatch import Dispatcher, Request, TenantLimits
from trtd.core.ids import LeaseId, TenantName, WorkerId
from trtd.core.inflight import SUSPECT_PATIENCE_S
from trtd.errors import ErrorCode

TENANTS = [TenantName("a"), TenantName("b")]
REPLICAS = 2
LIMITS = TenantLimits(max_requests=12, max_bytes=2000, max_attempts=4, max_outstanding=4, poison_s=5.0)
GRACE_S = 1.0

tenants = st.sampled_from(TENANTS)
replicas = st.integers(0, REPLICAS - 1)
mostly = st.sampled_from([True, True, True, True, False])


class DispatcherMachine(RuleBasedStateMachine):
    """Two tenants with two replicas each; every kind of event, in any order, also about former lives."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.dispatcher = Dispatcher(payload_digest, 1 << 32, GRACE_S)
        self.history = History()
        self.generations = dict.fromkeys(((tenant, replica) for tenant in TENANTS for replica in range(REPLICAS)), 1)
        self.closed: set[WorkerId] = set()
        self.configured: set[TenantName] = set()
        self.requests: list[Request] = []
        self.recognised: set[Request] = set()
        self.old_leases: list[tuple[WorkerId, LeaseId]] = []

    def worker(self, tenant: TenantName, replica: int) -> WorkerId:
        """The present life of a replica."""
        return WorkerId(tenant, replica, self.generations[tenant, replica])

    def turn(self) -> None:
        """One turn of the router's loop, observed."""
        self.dispatcher.advance(self.now)
        self.history.observe(self.dispatcher.take_effects(), self.now, LIMITS.max_outstanding)

    @initialize()
    def configure_all(self) -> None:
        for tenant in TENANTS:
            self.configure(tenant)
            for replica in range(REPLICAS):
                self.admit(tenant, replica)

    @rule(tenant=tenants)
    def configure(self, tenant: TenantName) -> None:
        self.dispatcher.configure_tenant(tenant, LIMITS, self.now)
        self.configured.add(tenant)
        self.turn()

    @precondition(lambda self: len(self.requests) > 40)
    @rule(tenant=tenants)
    def forget(self, tenant: TenantName) -> None:
        for replica in range(REPLICAS):
            self.history.lost(self.worker(tenant, replica))
            self.generations[tenant, replica] += 1
        self.dispatcher.forget_tenant(tenant, self.now)
        self.configured.discard(tenant)
        self.history.closed_gates.discard(tenant)
        self.turn()

    @rule(tenant=tenants, is_open=mostly)
    def set_gate(self, tenant: TenantName, is_open: bool) -> None:
        (self.history.closed_gates.discard if is_open else self.history.closed_gates.add)(tenant)
        self.dispatcher.set_gate(tenant, is_open, self.now)
        self.turn()

    @rule(tenant=tenants, is_available=mostly)
    def set_availability(self, tenant: TenantName, is_available: bool) -> None:
        self.dispatcher.set_availability(tenant, is_available, "told so", None, self.now)
        self.turn()

    @rule(tenant=tenants, replica=replicas)
    def admit(self, tenant: TenantName, replica: int) -> None:
        worker = self.worker(tenant, replica)
        if worker not in self.closed and tenant in self.configured:
            self.history.open_workers.add(worker)
        self.dispatcher.admit_worker(worker, self.now)
        self.turn()

    @precondition(lambda self: len(self.requests) > 10)
    @rule(tenant=tenants, replica=replicas)
    def close(self, tenant: TenantName, replica: int) -> None:
        worker = self.worker(tenant, replica)
        self.history.open_workers.discard(worker)
        if tenant in self.configured:
            self.closed.add(worker)
        self.dispatcher.close_worker(worker, self.now)
        self.turn()

    @rule(tenant=tenants, replica=replicas, blames_requests=mostly, is_replaced=mostly)
    def revoke(self, tenant: TenantName, replica: int, blames_requests: bool, is_replaced: bool) -> None:
        worker = self.worker(tenant, replica)
        self.old_leases += [(worker, lease) for lease, _ in self.history.held_by(worker)]
        self.history.lost(worker)
        self.dispatcher.revoke_worker(worker, CRASHED if blames_requests else REQUESTED, self.now)
        self.generations[tenant, replica] += 1
        if is_replaced:
            self.admit(tenant, replica)
        self.turn()

    @rule(tenant=tenants, replica=replicas)
    def detach(self, tenant: TenantName, replica: int) -> None:
        worker = self.worker(tenant, replica)
        self.old_leases += [(worker, lease) for lease, _ in self.history.held_by(worker)]
        self.history.lost(worker)
        self.dispatcher.detach_worker(worker, self.now)
        self.turn()

    @rule(
        tenant=tenants,
        content=st.integers(0, 5),
        timeout_s=st.sampled_from([30.0, 30.0, 30.0, 3.0, 0.3, 0.0]),
        priority=st.integers(-1, 1),
        payload_bytes=st.sampled_from([100, 100, 100, 0, 700, 2001]),
        is_resent=st.booleans(),
        count=st.integers(1, 6),
    )
    def submit(
        self,
        tenant: TenantName,
        content: int,
        timeout_s: float,
        priority: int,
        payload_bytes: int,
        is_resent: bool,
        count: int,
    ) -> None:
        for copy in range(count):
            request = make_request(
                tenant=tenant,
                payload=(b"%d" % (content + copy),),
                payload_bytes=payload_bytes,
                received_at=self.now,
                deadline=self.now + timeout_s,
                priority=priority,
                is_resent=is_resent,
            )
            self.requests.append(request)
            self.history.submitted.add(request)
            self.dispatcher.submit(request, self.now)
        self.turn()

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), is_owner=st.booleans())
    def resend(self, data: st.DataObject, is_owner: bool) -> None:
        first = data.draw(st.sampled_from(self.requests[-20:]))
        again = make_request(
            id=first.id,
            tenant=first.tenant,
            owner=first.owner if is_owner else "other",
            received_at=self.now,
            deadline=self.now + 1.0,
            is_resent=True,
        )
        is_recognised = any(
            (known.id, known.tenant, known.owner) == (again.id, again.tenant, again.owner)
            for known in self.unfinished()
        )
        self.history.submitted.add(again)
        self.dispatcher.submit(again, self.now)
        if is_recognised:
            self.recognised.add(again)
        else:
            self.requests.append(again)
        self.turn()

    @rule(tenant=tenants, replica=replicas, data=st.data())
    def answer(self, tenant: TenantName, replica: int, data: st.DataObject) -> None:
        worker = self.worker(tenant, replica)
        held = self.history.held_by(worker)
        chosen = data.draw(st.lists(st.sampled_from(held), unique=True)) if held else []
        for lease, _ in chosen:
            self.history.answered(worker, lease)
        results = [(lease, data.draw(st.sampled_from([None, ErrorCode.MODEL_FAILED])), ()) for lease, _ in chosen]
        self.dispatcher.complete(worker, results, self.now)
        self.turn()

    @precondition(lambda self: self.old_leases or self.history.leases)
    @rule(data=st.data(), tenant=tenants, replica=replicas)
    def answer_wrongly(self, data: st.DataObject, tenant: TenantName, replica: int) -> None:
        if self.old_leases:
            worker, lease = data.draw(st.sampled_from(self.old_leases[-20:]))
        else:
            worker, lease = self.worker(tenant, replica), data.draw(st.sampled_from(sorted(self.history.leases)))
        self.history.answered(worker, lease)
        self.dispatcher.complete(worker, [(lease, None, ())], self.now)
        self.turn()

    @rule(seconds=st.sampled_from([0.1, 0.1, 0.5, 0.0, 2.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.turn()
        due = self.dispatcher.next_deadline()
        assert due is None or due > self.now

    @rule(tenant=tenants)
    def release_poison(self, tenant: TenantName) -> None:
        self.dispatcher.release_poison(tenant)
        self.turn()

    @invariant()
    def accounts_hold(self) -> None:
        self.dispatcher.check()

    @invariant()
    def each_request_is_answered_or_unfinished(self) -> None:
        answered = {request for request in self.requests if request in self.history.ended}
        assert set(self.requests) - answered == self.unfinished()
        assert not self.recognised & self.history.ended

    @invariant()
    def every_deadline_is_kept(self) -> None:
        assert all(request.deadline > self.now for request in self.unfinished())

    def unfinished(self) -> set[Request]:
        """Accepted requests without an answer, as the dispatcher names them."""
        ids = {(tenant, id_) for tenant in self.configured for id_ in self.dispatcher.unfinished(tenant)}
        return {
            request
            for request in self.requests
            if (request.tenant, request.id) in ids and request not in self.history.ended
        }

    def teardown(self) -> None:
        """With healthy workers nothing is stuck: all that is left is answered, without waiting for a deadline."""
        for tenant in sorted(self.configured):
            self.set_availability(tenant, True)
            for replica in range(REPLICAS):
                self.revoke(tenant, replica, blames_requests=True, is_replaced=True)
        self.wait(SUSPECT_PATIENCE_S)
        for _ in range(len(self.requests) + 1):
            for worker in sorted(self.history.open_workers):
                held = self.history.held_by(worker)
                for lease, _ in held:
                    self.history.answered(worker, lease)
                self.dispatcher.complete(worker, [(lease, None, ()) for lease, _ in held], self.now)
                self.turn()
        self.accounts_hold()
        assert self.unfinished() == set()


def test_any_history_keeps_every_promise():
    """Accounts and promises hold after each of many random events, and in the end everything is answered."""
    run_state_machine_as_test(
        DispatcherMachine,
        settings=settings(
            max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
