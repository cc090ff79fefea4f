"""supervisord's event listener: each PROCESS_STATE_* event becomes one structured log line on stderr.

    [eventlistener:trtd-events]
    command = trtd-supervisord-events
    events = PROCESS_STATE

The protocol is on stdin and stdout; nothing else may be printed there, or supervisord stops talking to us.
"""

from __future__ import annotations

import sys
from typing import Any, TextIO

from supervisor import childutils

from trtd import observe

PREFIX = "PROCESS_STATE_"
LEVELS = {"EXITED": "warning", "BACKOFF": "warning", "FATAL": "error", "UNKNOWN": "error"}
"""Of the states that are worth more than `info`. An exit that the configuration expects is worth no more."""

log = observe.get_logger()


def main() -> int:
    """Listen until supervisord closes our stdin."""
    observe.configure()
    listen(sys.stdin, sys.stdout)
    return 0


def listen(stdin: TextIO, stdout: TextIO) -> None:
    """Log every event, and say so to supervisord, until the end of the input."""
    while True:
        childutils.listener.ready(stdout)
        header = childutils.get_headers(stdin.readline())
        if "len" not in header:
            return
        payload = stdin.read(int(header["len"]))
        report(header["eventname"], payload)
        childutils.listener.ok(stdout)


def report(name: str, payload: str) -> None:
    """One log line for one event. Events of other kinds, which a configuration may ask for, are only named."""
    state = name.removeprefix(PREFIX)
    if state == name:
        log.info("supervisord.event_received", name=name)
        return
    told = childutils.get_headers(payload)
    is_expected = told.get("expected") == "1"
    fields: dict[str, Any] = {
        "process": told["processname"],
        "group": told["groupname"],
        "state": state.lower(),
        "was": told["from_state"].lower(),
        **{number: int(told[number]) for number in ("pid", "tries") if number in told},
    }
    if "expected" in told:
        fields["is_expected"] = is_expected
    level = "info" if is_expected else LEVELS.get(state, "info")
    getattr(log, level)("supervisord.process_state_changed", **fields)


if __name__ == "__main__":
    sys.exit(main())
