"""The only place that imports inference runtimes (and later tensorrt and cuda), each lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtd.errors import InvalidConfig

if TYPE_CHECKING:
    from trtd.runtime.protocol import Runtime
    from trtd.wire.onnxruntime import OnnxRuntimeSettings
    from trtd.wire.tensorrt import TensorRTSettings

TENSORRT = ("tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx")
RUNTIMES = ("onnxruntime", "scripted", *TENSORRT)


def open_runtime(
    name: str,
    *,
    threads: int,
    slots: int = 1,
    tensorrt: TensorRTSettings | None = None,
    onnxruntime: OnnxRuntimeSettings | None = None,
) -> Runtime:
    """Open a runtime by the name that the configuration gives it; its package is imported here and not earlier.

    Args:
        name: one of `RUNTIMES`.
        threads: threads that it may use inside one run.
        slots: batches that will run at a time, for what is admitted by memory.
        tensorrt: for the flavours of TensorRT; None for their defaults.
        onnxruntime: for ONNX Runtime; None for its defaults.

    Raises:
        trtd.errors.InvalidConfig: there is no such runtime, its package is not installed, or this host has no device
            for it.
        trtd.core.faults.ProcessFault: its device cannot be had at the moment.
    """
    if name not in RUNTIMES:
        raise InvalidConfig(f"unknown runtime {name!r}; there are: {', '.join(RUNTIMES)}")
    try:
        if name == "scripted":
            from trtd.runtime.scripted import ScriptedRuntime

            return ScriptedRuntime()
        if name in TENSORRT:
            from trtd.engine.compatibility import Flavour
            from trtd.runtime.tensorrt.runtime import TensorRTRuntime
            from trtd.wire.tensorrt import TensorRTSettings

            return TensorRTRuntime(Flavour(name), tensorrt or TensorRTSettings(), slots)
        from trtd.runtime.onnxruntime import OnnxRuntime
        from trtd.wire.onnxruntime import OnnxRuntimeSettings

        return OnnxRuntime(threads, onnxruntime or OnnxRuntimeSettings())
    except ImportError as error:
        raise InvalidConfig(f"runtime {name!r} cannot be imported: {error}") from error
