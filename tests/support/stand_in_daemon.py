"""A socket in the place of the operators' one, whose lines the test writes."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

from trtd.wire import addresses

WAIT_S = 10.0

Lines = list[bytes | dict[str, Any]]


class StandInDaemon:
    """Answers every command with the lines that the test gave, and notes what was asked."""

    def __init__(self, directory: Path) -> None:
        self.asked: list[dict[str, Any]] = []
        self.lines: Lines = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(addresses.operator_path(str(directory)))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as lines:
                self.asked.append(json.loads(lines.readline()))
                for line in self.lines:
                    lines.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(WAIT_S)
