"""What of a child's word about its own end is believed."""

from __future__ import annotations

import itertools

import pytest

from tests.support.supervision import make_fault
from trtd.core.belief import believe_router, believe_worker
from trtd.core.cuda_faults import CODES, opening_fault, sticky_fault
from trtd.core.faults import Fault, FaultDomain, FaultKind
from trtd.errors import Blame

CLAIMS = [
    Fault(kind, "x", blame=blame, domain=domain, permanent=permanent, code=code)
    for kind, blame, domain, permanent, code in itertools.product(
        FaultKind, Blame, FaultDomain, (False, True), (0, 2, 214, 700, 802, 810, 4711, -1, 2**62)
    )
]
SEEN_BY_OTHERS = {
    FaultKind.REQUESTED,
    FaultKind.KILLED,
    FaultKind.BEAT_MISSED,
    FaultKind.PROGRESS_STALLED,
    FaultKind.START_TIMED_OUT,
    FaultKind.STOP_TIMED_OUT,
    FaultKind.SPAWN_FAILED,
}
MAY_BE_PERMANENT = {FaultKind.BAD_MODEL, FaultKind.BAD_CONFIG, FaultKind.PROBE_FAILED, FaultKind.START_FAILED}


def test_a_tenant_without_a_device_pays_for_whatever_it_says():
    """No claim of a worker on the CPU escapes the restart budget, and none spreads beyond its process."""
    for claim in CLAIMS:
        believed = believe_worker(claim, has_device=False)
        assert believed.is_charged
        assert believed.domain is FaultDomain.PROCESS


def test_a_device_is_blamed_for_its_own_codes_alone():
    """A worker on a device is believed where the table blames device or neighbours, whatever it says of blame."""
    for claim in CLAIMS:
        believed = believe_worker(claim, has_device=True)
        of_device = claim.code in CODES and CODES[claim.code].blame is Blame.DEVICE
        is_tellable = claim.kind in (FaultKind.STICKY_ERROR, FaultKind.DEVICE_AWAITED)
        assert believed.is_charged != (of_device and is_tellable)
        if not believed.is_charged:
            assert (believed.blame, believed.domain) == (Blame.DEVICE, CODES[claim.code].domain)


def test_some_budget_bounds_every_loop():
    """Whatever is not charged counts against the devices' budget, unless it only waits for a device to come up."""
    for claim, has_device in itertools.product(CLAIMS, (False, True)):
        believed = believe_worker(claim, has_device=has_device)
        is_counted = believed.is_charged or believed.is_of_device
        assert is_counted != (believed.kind is FaultKind.DEVICE_AWAITED)


@pytest.mark.parametrize("has_device", [False, True])
def test_a_process_tells_what_it_can_know(has_device):
    """Kinds that only others see become plain exits, and only files and configuration can be wrong for good."""
    for claim in CLAIMS:
        believed = believe_worker(claim, has_device=has_device)
        assert believed.kind not in SEEN_BY_OTHERS
        assert not believed.permanent or believed.kind in MAY_BE_PERMANENT
        assert 0 <= believed.code < 2**31


@pytest.mark.parametrize("code", sorted(CODES))
def test_what_the_runtime_says_is_what_is_believed(code):
    """An honest worker's fault arrives as it was made, for each code that ends a process."""
    if not CODES[code].is_sticky:
        return
    for fault in (sticky_fault(code, "run", ["a text"]), opening_fault(code, "opening device 0")):
        assert believe_worker(fault, has_device=True) == fault


def test_the_router_is_the_daemons():
    """Whatever the router says of itself, the daemon is to blame."""
    for claim in CLAIMS:
        believed = believe_router(claim)
        assert (believed.blame, believed.domain, believed.is_charged) == (Blame.DAEMON, FaultDomain.PROCESS, True)
    assert believe_router(make_fault(FaultKind.CRASHED)).kind is FaultKind.CRASHED
