"""What a child's word about its own end is worth.

A worker runs code that came with a model, so its word is taken where it cannot gain by it, and where the tables of
`trtd.core.cuda_faults` bear it out:

- A kind that only an observer can see (silence, a kill, a wish of an operator) is not a worker's to name.
- That its tenant is to blame, or trtd itself, is believed: both are charged to the tenant's restart budget.
- That a device is to blame, or somebody who shares it, is believed of a worker that works on a device, and only of a
  code that the table blames on these; who is hit is read from the table too. Such deaths have a restart budget of
  their own (`trtd.core.restarts`), so whoever lies about it gains one more budget, and no endless loop.
- That it has to wait for its device is believed likewise. Nothing is charged; the wait between two tries grows to its
  longest.
- Only what concerns files and configuration is permanent.

The router runs no code of a model; what ends it is a fault of the daemon.
"""

from __future__ import annotations

from dataclasses import replace

from trtd.core.cuda_faults import CudaClass, lookup
from trtd.core.faults import Fault, FaultDomain, FaultKind
from trtd.errors import Blame

TELLABLE = frozenset(
    {
        FaultKind.EXITED,
        FaultKind.CRASHED,
        FaultKind.OUT_OF_MEMORY,
        FaultKind.UNACCOUNTED_MEMORY,
        FaultKind.START_FAILED,
        FaultKind.BAD_MODEL,
        FaultKind.BAD_CONFIG,
        FaultKind.PROBE_FAILED,
        FaultKind.STICKY_ERROR,
        FaultKind.DEVICE_AWAITED,
        FaultKind.MISBEHAVED,
        FaultKind.TEMPORARY,
    }
)
"""What a process can know of itself; MISBEHAVED is what others saw of its messages."""
OF_A_DEVICE = frozenset({FaultKind.STICKY_ERROR, FaultKind.DEVICE_AWAITED})
OF_A_FILE = frozenset({FaultKind.START_FAILED, FaultKind.BAD_MODEL, FaultKind.BAD_CONFIG, FaultKind.PROBE_FAILED})
MAX_CODE = 2**31 - 1


def believe_router(fault: Fault) -> Fault:
    """What the router says of itself, as far as it is believed."""
    kind = fault.kind if fault.kind in TELLABLE - OF_A_DEVICE else FaultKind.EXITED
    return replace(fault, kind=kind, blame=Blame.DAEMON, domain=FaultDomain.PROCESS, permanent=False)


def believe_worker(fault: Fault, *, has_device: bool) -> Fault:
    """What a worker says of itself, as far as it is believed.

    Args:
        fault: as it came.
        has_device: whether the worker's runtime works on a CUDA device.
    """
    kind = fault.kind if fault.kind in TELLABLE else FaultKind.EXITED
    blame = Blame.DAEMON if fault.blame is Blame.DAEMON else Blame.TENANT
    domain = FaultDomain.PROCESS
    code = fault.code if 0 <= fault.code <= MAX_CODE else 0
    if kind in OF_A_DEVICE:
        known = lookup(code)
        if not has_device:
            kind = FaultKind.EXITED
        elif known.is_sticky:
            blame, domain = known.blame, known.domain
            is_awaited = kind is FaultKind.DEVICE_AWAITED and known.kind is CudaClass.AWAITED
            kind = FaultKind.DEVICE_AWAITED if is_awaited else FaultKind.STICKY_ERROR
        else:
            kind, blame = FaultKind.STICKY_ERROR, Blame.TENANT
    is_permanent = fault.permanent and kind in OF_A_FILE
    return replace(fault, kind=kind, blame=blame, domain=domain, code=code, permanent=is_permanent)
