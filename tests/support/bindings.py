"""TensorRT's Python bindings for tests without a GPU: the real ones where they are installed, and a stand-in anywhere.

The stand-in has the base classes that trtd derives from and calls the derived methods as the C++ side does: by which
names and in which order is measured with the packages 10.6 and 11.4, and the tests run against those as well.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
from types import ModuleType
from typing import Any

REAL = ("tensorrt_bindings", "tensorrt_lean_bindings", "tensorrt_dispatch_bindings", "tensorrt_rtx_bindings")


class ErrorCode(enum.IntEnum):
    """As far as it is used."""

    UNSPECIFIED_ERROR = 1
    INTERNAL_ERROR = 2
    INVALID_ARGUMENT = 3


class Severity(enum.IntEnum):
    """Of a log line."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


def installed_bindings() -> list[str]:
    """Names of the packages that are installed here; they import without a GPU."""
    return [name for name in REAL if importlib.util.find_spec(name) is not None]


def find_bindings(name: str) -> ModuleType:
    """A module by its name. `stand-in/10` and `stand-in/11` are always there."""
    if name.startswith("stand-in"):
        return stand_in(passes_stream_first=name.endswith("/10"))
    return importlib.import_module(name)


def stand_in(*, passes_stream_first: bool) -> ModuleType:
    """A module like `tensorrt_bindings`, with the order of arguments of 10.x to 11.1 or of later versions."""

    class Base:
        is_open = False

        def __init__(self) -> None:
            self.is_open = True

    class IErrorRecorder(Base):
        @staticmethod
        def report_error(recorder: Any, code: ErrorCode, text: str) -> bool:
            assert recorder.is_open, "the base class was not initialised"
            return bool(recorder.report_error(code, text))

        @staticmethod
        def num_errors(recorder: Any) -> int:
            return int(recorder.get_num_errors())

    class ILogger(Base):
        @staticmethod
        def log(logger: Any, severity: Severity, text: str) -> None:
            logger.log(severity, text)

    class IGpuAllocator(Base):
        @staticmethod
        def allocate_async(allocator: Any, size: int, alignment: int, flags: int, stream: int) -> object:
            last = (stream, flags) if passes_stream_first else (flags, stream)
            return allocator.allocate_async(size, alignment, *last) or None

    class IGpuAsyncAllocator(IGpuAllocator):
        pass

    class IOutputAllocator(Base):
        pass

    module = ModuleType("tensorrt_stand_in")
    ILogger.Severity = Severity  # type: ignore[attr-defined]
    for one in (IErrorRecorder, ILogger, IGpuAllocator, IGpuAsyncAllocator, IOutputAllocator):
        setattr(module, one.__name__, one)
    module.ErrorCodeTRT = ErrorCode  # type: ignore[attr-defined]
    return module
