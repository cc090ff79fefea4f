"""What a failed call of CUDA or TensorRT means for the process: every failure of the TensorRT runtime ends here.

The code decides where there is one, else TensorRT's text, and in any case the probe: whoever cannot set a few bytes of
device memory can do no more work.
"""

from __future__ import annotations

from collections.abc import Sequence

from trtd.core.cuda_faults import CudaClass, TextKind, lookup, sticky_fault, worst
from trtd.core.faults import ProcessFault
from trtd.errors import InvalidConfig, ModelFailed, OutOfMemory, TrtdError
from trtd.runtime import cuda


class CallRefused(Exception):
    """TensorRT refused a call by its return value; why stands in the recorder."""

    def __init__(self, call: str) -> None:
        super().__init__(f"{call} was refused")
        self.call = call


def judge(error: Exception, texts: Sequence[str], what: str) -> TrtdError:
    """The typed error of a failed run.

    Args:
        error: `CudaError` or `CallRefused`.
        texts: what the recorder has of it.
        what: what was being done, in a few words.

    Raises:
        trtd.core.faults.ProcessFault: the process is lost.
    """
    kind = _examine(error, texts, what)
    told = f"{what}: {told_by(error, texts)}"
    return OutOfMemory(told) if kind is TextKind.MEMORY else ModelFailed(told)


def judge_load(error: Exception, texts: Sequence[str], what: str) -> TrtdError:
    """The typed error of a failed load, likewise."""
    kind = _examine(error, texts, what)
    advice = worst(list(texts)).advice
    told = f"{what}: {advice + ': ' if advice else ''}{told_by(error, texts)}"
    return OutOfMemory(told) if kind is TextKind.MEMORY else InvalidConfig(told)


def told_by(error: Exception, texts: Sequence[str]) -> str:
    """The words of the failure itself."""
    return "; ".join(texts) if texts else str(error)


def _examine(error: Exception, texts: Sequence[str], what: str) -> TextKind:
    verdict = worst(list(texts))
    code = error.code if isinstance(error, cuda.CudaError) else verdict.code
    probed = cuda.probe()
    if probed:
        raise ProcessFault(sticky_fault(probed, what)) from error
    if code and lookup(code).is_sticky:
        raise ProcessFault(sticky_fault(code, what)) from error
    cuda.forget_last_error()
    if code and lookup(code).kind is CudaClass.MEMORY:
        return TextKind.MEMORY
    return verdict.kind
