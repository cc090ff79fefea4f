"""The only place that imports inference runtimes (and later tensorrt and cuda), each lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtd.errors import InvalidConfig

if TYPE_CHECKING:
    from trtd.runtime.protocol import Runtime

RUNTIMES = ("onnxruntime", "scripted")


def open_runtime(name: str, *, threads: int) -> Runtime:
    """Open a runtime by the name that the configuration gives it; its package is imported here and not earlier.

    Args:
        name: one of `RUNTIMES`.
        threads: threads that it may use inside one run.

    Raises:
        trtd.errors.InvalidConfig: there is no such runtime, or its package is not installed.
    """
    if name not in RUNTIMES:
        raise InvalidConfig(f"unknown runtime {name!r}; there are: {', '.join(RUNTIMES)}")
    try:
        if name == "scripted":
            from trtd.runtime.scripted import ScriptedRuntime

            return ScriptedRuntime()
        from trtd.runtime.onnxruntime import OnnxRuntime

        return OnnxRuntime(threads)
    except ImportError as error:
        raise InvalidConfig(f"runtime {name!r} cannot be imported: {error}") from error
