"""A service manager's end of NOTIFY_SOCKET: it keeps every statement, and lets a test wait for one."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_S = 30.0
MAX_STATEMENT_BYTES = 4096


class Host:
    """Listens at a path, or at an abstract name when that begins with `@`.

    Attributes:
        address: for NOTIFY_SOCKET.
        statements: all that was said, oldest first, each as its assignments.
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.statements: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.address[1:] if self.address.startswith("@") else self.address)

    def wait(self, name: str, value: str | None = None, *, after: int = 0, patience_s: float = PATIENCE_S) -> int:
        """The number of the first statement, from `after` on, that assigns this; it fails when none comes."""
        until = time.monotonic() + patience_s
        while True:
            for number, statement in enumerate(self.statements[after:], after):
                if name in statement and value in (None, statement[name]):
                    return number
            self._receive(until, f"{name}={value or '...'}")

    def receive(self) -> dict[str, str]:
        """The next statement."""
        self._receive(time.monotonic() + PATIENCE_S, "a statement")
        return self.statements[-1]

    def read_until_silent(self, for_s: float) -> None:
        """Read on until nothing was said for so long; it fails when there is no such pause."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                self._receive(time.monotonic() + for_s, "anything")
            except AssertionError:
                return
        raise AssertionError(f"there was no silence of {for_s:g} s; said was {self.statements}")

    def names(self) -> set[str]:
        """Everything that was assigned so far."""
        return {name for statement in self.statements for name in statement}

    def _receive(self, until: float, what: str) -> None:
        self._socket.settimeout(max(0.001, until - time.monotonic()))
        try:
            text = self._socket.recv(MAX_STATEMENT_BYTES).decode()
        except TimeoutError:
            raise AssertionError(f"{what} was not said; said was {self.statements}") from None
        self.statements.append(dict(line.split("=", 1) for line in text.splitlines()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()
