"""sd_notify(3) of our own: statements to the service manager, one datagram each; without NOTIFY_SOCKET nothing happens.

What is said and when is decided in `trtd.supervisor.service_manager`. The protocol is three variables and a datagram,
which is less than what a library for it would bring.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import MutableMapping

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLES = ("WATCHDOG_USEC", "WATCHDOG_PID")
MAX_STATUS_LENGTH = 400
"""Characters of a STATUS; `systemctl status` shows it in one line."""


class Notifier:
    """Speaks to a service manager, if there is one.

    Args:
        address: a path or, beginning with `@`, an abstract name; None when nobody listens.
        watchdog_s: within so long a WATCHDOG=1 has to follow the one before; None without a watchdog.
    """

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s
        self._address = None if address is None else _socket_name(address)
        self._socket: socket.socket | None = None
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    @property
    def is_heard(self) -> bool:
        """Whether there is somebody to speak to."""
        return self._socket is not None

    def tell(self, **assignments: str | int) -> bool:
        """Send assignments such as READY=1 as one statement; never waits.

        Returns:
            False when it was not taken: say it again later.
        """
        if self._socket is None or self._address is None:
            return True
        lines = "\n".join(f"{name}={one_status_line(str(value))}" for name, value in assignments.items())
        try:
            self._socket.sendto(lines.encode(errors="replace"), self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the socket; repeatable."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def take_notifier(environ: MutableMapping[str, str], pid: int) -> Notifier:
    """The notifier that the environment names. Its variables are removed, so that no child speaks in our name."""
    address = environ.pop(SOCKET_VARIABLE, None) or None
    interval, owner = (environ.pop(name, None) for name in WATCHDOG_VARIABLES)
    is_address = address is not None and address[0] in "/@" and len(address) > 1
    is_ours = owner is None or owner == str(pid)
    watchdog_s = None
    if is_ours and interval is not None:
        with contextlib.suppress(ValueError):
            watchdog_s = int(interval) / 1e6 or None
    return Notifier(address if is_address else None, watchdog_s if is_address else None)


def one_status_line(text: str) -> str:
    """The text as one line of bounded length: a newline would begin another assignment."""
    return " ".join(text.split())[:MAX_STATUS_LENGTH]


def _socket_name(address: str) -> str:
    return "\0" + address[1:] if address.startswith("@") else address
