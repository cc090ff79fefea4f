"""Which deaths of a worker can have been caused by what it was running, and how much that says about an input.

An input that is convicted is refused for a long time, so only a death that an input brings about by itself may count
towards it. Where something else can look the same, what the worker held is kept apart from other work, which costs an
innocent request some milliseconds, and nothing more. Where it cannot have been the input at all, what the worker held
goes to a successor like everything else.
"""

from __future__ import annotations

from enum import StrEnum

from trtd.core.cuda_faults import CODES, UNKNOWN_CODE
from trtd.core.faults import Fault, FaultDomain, FaultKind
from trtd.errors import Blame


class Suspicion(StrEnum):
    """What a death says about the requests that the worker held."""

    NONE = "none"
    """They had nothing to do with it."""
    POSSIBLE = "possible"
    """One of them may have done it: they run apart from others, and nothing is held against them."""
    STRONG = "strong"
    """Nothing else is known to do that: it counts against the one that was alone with the worker."""


BY_KIND: dict[FaultKind, Suspicion] = {
    # The process ended itself: a crash of native code, exit() in a library, a defect that the input leads to.
    FaultKind.CRASHED: Suspicion.STRONG,
    FaultKind.EXITED: Suspicion.STRONG,
    # It has served: what exits with such a code now is native code that was run, not a file that was looked at.
    FaultKind.BAD_MODEL: Suspicion.STRONG,
    FaultKind.BAD_CONFIG: Suspicion.STRONG,
    FaultKind.PROBE_FAILED: Suspicion.STRONG,
    FaultKind.START_FAILED: Suspicion.STRONG,
    # A context that is lost by what the tenant itself ran; see `suspicion_of` for the codes of which this is not known.
    FaultKind.STICKY_ERROR: Suspicion.STRONG,
    # An input of any size can ask for any memory. A leak of many requests ends with the one that happens to run, but
    # the successor, which is fresh, does not end with it again.
    FaultKind.OUT_OF_MEMORY: Suspicion.STRONG,
    # The interpreter lived and beat, and the one thing in flight never came to its end.
    FaultKind.PROGRESS_STALLED: Suspicion.STRONG,
    # Whatever wrote these messages is not our code any more: something that was run has written over it.
    FaultKind.MISBEHAVED: Suspicion.STRONG,
    # Silence alone may be a frozen machine, a debugger or want of processor time: it convicts nobody.
    FaultKind.BEAT_MISSED: Suspicion.POSSIBLE,
    # A signal that somebody sent: an operator, a test, or the kernel, which is short of memory for whatever reason.
    FaultKind.KILLED: Suspicion.POSSIBLE,
    # It left without the reason that it may have had.
    FaultKind.TEMPORARY: Suspicion.POSSIBLE,
    # The driver's drift beside the pool is that of all requests together.
    FaultKind.UNACCOUNTED_MEMORY: Suspicion.NONE,
    # Wishes, and ends of processes that hold nothing.
    FaultKind.REQUESTED: Suspicion.NONE,
    FaultKind.DEVICE_AWAITED: Suspicion.NONE,
    FaultKind.SPAWN_FAILED: Suspicion.NONE,
    FaultKind.START_TIMED_OUT: Suspicion.NONE,
    FaultKind.STOP_TIMED_OUT: Suspicion.NONE,
}


def suspicion_of(fault: Fault) -> Suspicion:
    """What a worker's end says about the requests that it held.

    Whatever is blamed on a device, or hits more than the process, says nothing: an ill memory cell (214) or the death
    of a neighbour under MPS (810) ends whatever runs. A sticky code that nobody knows (999, or one that is newer than
    the table) may be the driver's.
    """
    if fault.blame is Blame.DEVICE or fault.domain in {FaultDomain.SHARING, FaultDomain.DEVICE}:
        return Suspicion.NONE
    if fault.kind is FaultKind.STICKY_ERROR and (fault.code == UNKNOWN_CODE or fault.code not in CODES):
        return Suspicion.POSSIBLE
    return BY_KIND[fault.kind]
