"""The operators' protocol: one unix stream socket, one JSON object per line, and the one table of its commands.

A connection carries one command: `{"v": 1, "command": NAME, "args": {...}}`. The daemon answers with any number of
`{"progress": {...}}` lines and one last line, `{"ok": {...}}` or `{"error": {"code", "message", "retry_after_s"}}`,
where an error may carry a `hint` and `details` too. The table says what exists and which role it needs; the handlers
are in `trtd.supervisor.commands`, the renderers named in `trtd.cli.commands`, and a test proves that each row has both.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

OPERATOR_VERSION = 1
MAX_LINE_BYTES = 1 << 20


class Role(IntEnum):
    """What an operator may do; a higher role includes the lower ones."""

    VIEWER = 1
    OPERATOR = 2


@dataclass(frozen=True, slots=True)
class OperatorCommand:
    """One row: a command of the operators' socket.

    Attributes:
        name: on the wire and on the command line.
        role: least role that may give it.
        summary: one line for `--help`.
        args: names and types of its arguments; `?` marks optional ones.
    """

    name: str
    role: Role
    summary: str
    args: tuple[tuple[str, str], ...] = ()


OPERATOR_COMMANDS: tuple[OperatorCommand, ...] = (
    OperatorCommand("status", Role.VIEWER, "show tenants, workers, queues and memory", (("tenant", "str?"),)),
    OperatorCommand(
        "drain",
        Role.OPERATOR,
        "refuse new requests, finish the accepted ones, stop the workers",
        (("tenant", "str?"), ("all", "bool?"), ("timeout_s", "float?")),
    ),
    OperatorCommand(
        "resume",
        Role.OPERATOR,
        "let a drained or quarantined tenant serve again",
        (("tenant", "str?"), ("all", "bool?")),
    ),
    OperatorCommand(
        "restart",
        Role.OPERATOR,
        "replace a tenant's workers one after the other; nothing is refused",
        (("tenant", "str"), ("timeout_s", "float?")),
    ),
    OperatorCommand(
        "fault",
        Role.OPERATOR,
        "make a real fault in a tenant's workers, where debug.allow_faults permits it",
        (("tenant", "str"), ("fault", "str")),
    ),
    OperatorCommand(
        "reload",
        Role.OPERATOR,
        "read the configuration again, apply the difference, and wait until the workers obey it",
        (("timeout_s", "float?"),),
    ),
)
