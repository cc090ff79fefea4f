"""Where TensorRT's errors and log lines go: bounded, deduplicated, and never an exception back into native code.

The classes are made for a module at run time, because each flavour and version brings its own base class. What the
texts mean is in `trtd.core.cuda_faults`. Neither holds a reference to a runtime, engine or context: such a cycle
would never be collected.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from trtd.core.texts import shorten

MAX_ENTRIES = 64
MAX_CHARS = 500

Sink = Callable[[str, dict[str, Any]], None]
"""Takes the name of an event and its fields; neither blocks nor raises."""


def one_line(text: str) -> str:
    """A text of TensorRT without line breaks, bounded."""
    return shorten(" ".join(text.split()), MAX_CHARS)


class ErrorBook:
    """Texts of errors since they were last taken; the same text again is counted, not kept. Safe in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[tuple[int, str]] = []
        self._seen: set[str] = set()
        self.repeated = 0
        self.overflowed = False

    def note(self, code: int, text: str) -> bool:
        """Keep a text; whether it was new."""
        line = one_line(text)
        with self._lock:
            if line in self._seen:
                self.repeated += 1
                return False
            if len(self._entries) >= MAX_ENTRIES:
                self.overflowed = True
                return False
            self._seen.add(line)
            self._entries.append((code, line))
            return True

    def take(self) -> list[str]:
        """The texts so far, oldest first; the book is empty afterwards."""
        with self._lock:
            entries, self._entries = self._entries, []
            self._seen = set()
            self.overflowed = False
        return [text for _, text in entries]

    def clear(self) -> None:
        """Forget all of them; quick where there are none."""
        if self._entries or self.overflowed:
            self.take()

    def entry(self, index: int) -> tuple[int, str] | None:
        """One entry, None beyond the last."""
        with self._lock:
            return self._entries[index] if 0 <= index < len(self._entries) else None

    def __len__(self) -> int:
        return len(self._entries)


def make_recorder(module: ModuleType, book: ErrorBook, sink: Sink) -> Any:
    """An error recorder of a TensorRT module that writes into `book` and tells `sink` of each new text."""
    return _recorder_class(module)(book, sink)


def make_logger(module: ModuleType, book: ErrorBook, sink: Sink) -> Any:
    """A logger of a TensorRT module. Errors go into `book` as well: before a recorder is attached they come here."""
    return _logger_class(module)(book, sink)


# One class for each module and for ever: the bindings were not made for classes that are collected.


@functools.cache
def _recorder_class(module: ModuleType) -> Any:
    base: Any = module.IErrorRecorder

    class Recorder(base):  # type: ignore[misc]  # the base class comes with the package
        def __init__(self, book: ErrorBook, sink: Sink) -> None:
            base.__init__(self)
            self._book = book
            self._sink = sink

        def report_error(self, code: Any, text: str) -> bool:
            # An exception would only be printed by TensorRT, and taken for False.
            try:
                if self._book.note(int(code), text):
                    self._sink("tensorrt.error_reported", {"code": int(code), "text": one_line(text)})
            except BaseException:
                self._book.repeated += 1
            return True

        def get_num_errors(self) -> int:
            return len(self._book)

        # The C++ side looks for the one name, callers in Python for the other.
        num_errors = get_num_errors

        def get_error_code(self, index: int) -> Any:
            entry = self._book.entry(index)
            return module.ErrorCodeTRT.UNSPECIFIED_ERROR if entry is None else module.ErrorCodeTRT(entry[0])

        def get_error_desc(self, index: int) -> str:
            entry = self._book.entry(index)
            return "" if entry is None else entry[1]

        def has_overflowed(self) -> bool:
            return self._book.overflowed

        def clear(self) -> None:
            self._book.take()

    return Recorder


@functools.cache
def _logger_class(module: ModuleType) -> Any:
    base: Any = module.ILogger
    severity: Any = module.ILogger.Severity
    names = {severity.WARNING: "tensorrt.warned", severity.INFO: "tensorrt.told"}

    class Logger(base):  # type: ignore[misc]  # the base class comes with the package
        def __init__(self, book: ErrorBook, sink: Sink) -> None:
            base.__init__(self)
            self._book = book
            self._sink = sink

        def log(self, level: Any, text: str) -> None:
            try:
                if level in (severity.INTERNAL_ERROR, severity.ERROR):
                    if self._book.note(0, text):
                        self._sink("tensorrt.error_reported", {"code": 0, "text": one_line(text)})
                elif level in names:
                    self._sink(names[level], {"text": one_line(text)})
            except BaseException:
                self._book.repeated += 1

    return Logger
