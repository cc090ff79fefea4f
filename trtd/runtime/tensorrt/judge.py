"""What a failed call of CUDA or TensorRT means for the process: every failure of the TensorRT runtime ends here.

The code decides where there is one, else TensorRT's text, and in any case the probe: whoever cannot set a few bytes of
device memory can do no more work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trtd.core.cuda_faults import CudaClass, TextKind, lookup, sticky_fault, worst
from trtd.core.faults import ProcessFault
from trtd.errors import InvalidConfig, ModelFailed, OutOfMemory, TrtdError
from trtd.runtime import cuda
from trtd.runtime.tensorrt.recorder import one_line


class CallRefused(Exception):
    """TensorRT refused a call, by its return value or by an exception; why stands in the recorder, or in `text`."""

    def __init__(self, call: str, text: str = "") -> None:
        super().__init__(f"{call} was refused{': ' if text else ''}{text}")
        self.call = call
        self.text = text


def ask(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of TensorRT's bindings, some of which refuse with an exception where others return False.

    Raises:
        CallRefused: it raised; want of host memory passes through.
    """
    try:
        return function(*args)
    except MemoryError:
        raise
    except Exception as error:
        raise CallRefused(getattr(function, "__name__", str(function)), one_line(str(error))) from error


def insist(function: Callable[..., Any], *args: Any) -> None:
    """The same for a function that says whether it did what it was asked.

    Raises:
        CallRefused: it did not.
    """
    if not ask(function, *args):
        raise CallRefused(getattr(function, "__name__", str(function)))


def assign(owner: Any, name: str, value: Any) -> None:
    """Set an attribute of an object of TensorRT; the setter may be a call that is refused.

    Raises:
        CallRefused: it was.
    """
    try:
        setattr(owner, name, value)
    except RuntimeError as error:
        raise CallRefused(name, one_line(str(error))) from error


def judge(error: Exception, texts: Sequence[str], what: str, stream: cuda.Stream | None = None) -> TrtdError:
    """The typed error of a failed run.

    Args:
        error: `CudaError` or `CallRefused`.
        texts: what the recorder has of it.
        what: what was being done, in a few words.
        stream: on which it was done.

    Raises:
        trtd.core.faults.ProcessFault: the process is lost.
    """
    kind = _examine(error, texts, what, stream)
    told = f"{what}: {told_by(error, texts)}"
    return OutOfMemory(told) if kind is TextKind.MEMORY else ModelFailed(told)


def judge_load(error: Exception, texts: Sequence[str], what: str) -> TrtdError:
    """The typed error of a failed load, likewise."""
    kind = _examine(error, texts, what, None)
    advice = worst(_texts_of(error, texts)).advice
    told = f"{what}: {advice + ': ' if advice else ''}{told_by(error, texts)}"
    return OutOfMemory(told) if kind is TextKind.MEMORY else InvalidConfig(told)


def told_by(error: Exception, texts: Sequence[str]) -> str:
    """The words of the failure itself."""
    return "; ".join(_texts_of(error, texts)) or str(error)


def _texts_of(error: Exception, texts: Sequence[str]) -> list[str]:
    """What TensorRT said: in the recorder, and in its exception where that says more."""
    told = error.text if isinstance(error, CallRefused) else ""
    return [*texts, told] if told and told not in texts else list(texts)


def _examine(error: Exception, texts: Sequence[str], what: str, stream: cuda.Stream | None) -> TextKind:
    verdict = worst(_texts_of(error, texts))
    code = error.code if isinstance(error, cuda.CudaError) else verdict.code
    probed = cuda.probe(stream)
    if probed:
        raise ProcessFault(sticky_fault(probed, what, texts)) from error
    if code and lookup(code).is_sticky:
        raise ProcessFault(sticky_fault(code, what, texts)) from error
    cuda.forget_last_error()
    if code and lookup(code).kind is CudaClass.MEMORY:
        return TextKind.MEMORY
    return verdict.kind
