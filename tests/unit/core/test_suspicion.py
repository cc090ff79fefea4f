"""Which ends of a worker say something about what it was running."""

from __future__ import annotations

import pytest

from trtd.core.cuda_faults import CODES, sticky_fault
from trtd.core.faults import ExitStatus, Fault, FaultDomain, FaultKind, classify_exit
from trtd.core.suspicion import BY_KIND, Suspicion, suspicion_of
from trtd.errors import Blame, ExitCode

UNKNOWN = {999, 4711}


def test_every_kind_is_decided():
    """No kind of fault is without an entry."""
    assert set(BY_KIND) == set(FaultKind)


@pytest.mark.parametrize("code", sorted({code for code, known in CODES.items() if known.is_sticky} | {4711}))
def test_sticky_codes(code):
    """What a tenant's own work does to its context counts; what devices and neighbours do, or nobody knows, not."""
    fault = sticky_fault(code, "run of model 'm'")
    if fault.blame is Blame.DEVICE:
        assert suspicion_of(fault) is Suspicion.NONE
    else:
        assert suspicion_of(fault) is (Suspicion.POSSIBLE if code in UNKNOWN else Suspicion.STRONG)


@pytest.mark.parametrize("domain", [FaultDomain.SHARING, FaultDomain.DEVICE])
def test_what_hits_more_than_the_process_says_nothing(domain):
    """A fault that its neighbours had too was not made by this worker's input, whatever its kind."""
    for kind in FaultKind:
        assert suspicion_of(Fault(kind, "x", domain=domain)) is Suspicion.NONE
        assert suspicion_of(Fault(kind, "x", blame=Blame.DEVICE)) is Suspicion.NONE


@pytest.mark.parametrize(
    ("status", "suspicion"),
    [
        (ExitStatus(signal=11), Suspicion.STRONG),
        (ExitStatus(signal=6), Suspicion.STRONG),
        (ExitStatus(signal=31), Suspicion.STRONG),
        (ExitStatus(signal=9), Suspicion.POSSIBLE),
        (ExitStatus(signal=15), Suspicion.POSSIBLE),
        (ExitStatus(code=0), Suspicion.STRONG),
        (ExitStatus(code=1), Suspicion.STRONG),
        (ExitStatus(code=ExitCode.TEMPORARY), Suspicion.POSSIBLE),
    ],
)
def test_exits(status, suspicion):
    """A process that ends itself counts; one that was killed, or left without its reason, may have other causes."""
    assert suspicion_of(classify_exit(status)) is suspicion


def test_silence_alone_convicts_nobody():
    """A frozen machine misses beats; a batch that never ends while the interpreter beats is the batch's own."""
    assert suspicion_of(Fault(FaultKind.BEAT_MISSED, "x")) is Suspicion.POSSIBLE
    assert suspicion_of(Fault(FaultKind.PROGRESS_STALLED, "x")) is Suspicion.STRONG
