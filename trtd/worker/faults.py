"""What an error means that ends a worker: the same fault in whichever thread and for whichever slot it is met.

`trtd.worker.load` and every thread of `trtd.worker.process` judge by it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from trtd.core.faults import Fault, FaultKind, ProcessFault
from trtd.errors import Blame, InvalidConfig, ModelFailed, OutOfMemory, TrtdError
from trtd.observe import get_logger

log = get_logger()


def fault_of(error: BaseException, invalid: FaultKind = FaultKind.BAD_CONFIG) -> Fault:
    """The fault of a worker that cannot go on.

    Want of memory passes by itself, and so does what is worth a retry; what a file or the configuration says wrongly
    does not. What nobody expects is a defect of ours, whose details go to the log.

    Args:
        error: what was raised.
        invalid: what InvalidConfig is about: the configuration, or the model that was being loaded.
    """
    match error:
        case ProcessFault():
            return error.fault
        case MemoryError():
            return Fault(FaultKind.OUT_OF_MEMORY, "the process could not get memory that it needed")
        case OutOfMemory():
            return Fault(FaultKind.OUT_OF_MEMORY, error.message)
        case ModelFailed():
            return Fault(FaultKind.BAD_MODEL, error.message, permanent=True)
        case InvalidConfig():
            return Fault(invalid, error.message, permanent=True)
        case TrtdError():
            if error.retryable:
                blame = Blame.DAEMON if error.traits.blame is Blame.DAEMON else Blame.TENANT
                return Fault(FaultKind.TEMPORARY, error.message, blame=blame)
            return Fault(FaultKind.BAD_CONFIG, error.message, permanent=True)
        case _:
            text = f"{type(error).__name__}: {error}"
            log.error("worker.defect_met", error=text, trace="".join(traceback.format_exception(error)).strip())
            return Fault(FaultKind.EXITED, f"a defect of trtd's own: {text}", blame=Blame.DAEMON)


@contextmanager
def judged(invalid: FaultKind = FaultKind.BAD_CONFIG) -> Iterator[None]:
    """Turn a typed error into the fault that it means.

    Raises:
        trtd.core.faults.ProcessFault: for each `TrtdError`.
    """
    try:
        yield
    except TrtdError as error:
        raise ProcessFault(fault_of(error, invalid)) from error
