"""What clients learn of faults."""

from __future__ import annotations

import pytest

from tests.support.desk import Desk
from tests.support.supervision import make_child
from trtd.core.disclosure import TOLD, for_clients, without_directories
from trtd.core.dispatch import Refuse, TenantLimits
from trtd.core.faults import Fault, FaultKind
from trtd.core.fleet import TenantSpec
from trtd.core.fleet.tenant import Tenant, judge_availability
from trtd.core.ids import TenantName
from trtd.core.lifecycle import State, Timeouts
from trtd.core.restarts import RestartPolicy
from trtd.errors import ErrorCode

SECRET = "/srv/customers/acme/model.onnx: no such file or directory"
ROOTS = frozenset({"srv", "usr", "home"})


def test_every_kind_has_words():
    """A new kind of fault needs words for clients too."""
    assert TOLD.keys() == set(FaultKind)


@pytest.mark.parametrize("kind", FaultKind)
def test_no_word_of_a_fault_itself_is_told(kind):
    """Messages have paths and words of libraries in them; clients get neither, whatever the kind."""
    told = for_clients(Fault(kind, SECRET, texts=(SECRET,)))
    assert told
    assert not set(told.split()) & set(SECRET.split()) - {"no"}
    assert "/" not in told


def test_operators_have_the_whole_reason_and_clients_the_neutral_one():
    """Of the same worker in quarantine."""
    spec = TenantSpec(TenantName("a"), 1, Timeouts(), RestartPolicy(), "w", "r")
    child = make_child(State.QUARANTINED, name="a/0", last_fault=Fault(FaultKind.BAD_MODEL, SECRET))
    found = judge_availability(Tenant(spec), [child])
    assert found.reason == f"worker a/0 is quarantined: {SECRET}"
    assert found.told == "worker a/0 is quarantined: its model cannot be used"


def test_a_request_whose_workers_died_is_told_no_message_of_theirs():
    """Neither when all its attempts are used up nor when it is convicted."""
    fault = Fault(FaultKind.CRASHED, SECRET)
    for attempts, code in ((1, ErrorCode.WORKER_LOST), (9, ErrorCode.POISONOUS)):
        desk = Desk(TenantLimits(max_attempts=attempts))
        worker = desk.admit()
        desk.submit_new()
        while not (refusals := desk.take(Refuse)):
            worker = desk.admit(desk.die(worker, fault))
        (refused,) = refusals
        assert refused.code is code
        assert "the last one: it crashed" in refused.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot open /srv/customers/acme/w.data: gone", "cannot open w.data: gone"),
        ("'/usr/lib/x.so' (/home/me/y.so)", "'x.so' (y.so)"),
        ("node /model/layers.0/attn/MatMul failed", "node /model/layers.0/attn/MatMul failed"),
        ("shape is 1/2, a/b and /x", "shape is 1/2, a/b and /x"),
        ("https://host/srv/x", "https://host/srv/x"),
    ],
)
def test_paths_of_this_host_are_cut(text, expected):
    """Names of nodes look like paths too, and stay."""
    assert without_directories(text, ROOTS) == expected
