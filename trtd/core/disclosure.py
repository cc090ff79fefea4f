"""What clients are told of a worker's end. This is the one place where such texts are made.

A fault's own message is for operators: it has paths of this host, words of libraries and what other tenants' files are
called. Clients learn of what kind it was, and whether somebody has to act.
"""

from __future__ import annotations

import re

from trtd.core.faults import Fault, FaultKind

_PATH = re.compile(r"(?<![^\s'\"(=:,\[<])(?:/[^\s/'\"(),:;<>\]]+){2,}")

TOLD: dict[FaultKind, str] = {
    FaultKind.EXITED: "it ended",
    FaultKind.KILLED: "it was killed",
    FaultKind.CRASHED: "it crashed",
    FaultKind.OUT_OF_MEMORY: "it ran out of memory",
    FaultKind.BEAT_MISSED: "it fell silent",
    FaultKind.PROGRESS_STALLED: "it made no progress",
    FaultKind.START_TIMED_OUT: "it was not ready in time",
    FaultKind.STOP_TIMED_OUT: "it did not stop in time",
    FaultKind.SPAWN_FAILED: "it could not be started",
    FaultKind.START_FAILED: "it could not be started",
    FaultKind.BAD_MODEL: "its model cannot be used",
    FaultKind.BAD_CONFIG: "its configuration cannot be used",
    FaultKind.PROBE_FAILED: "its model gave a wrong answer to a known question",
    FaultKind.STICKY_ERROR: "its device reported an error",
    FaultKind.DEVICE_AWAITED: "its device is not there yet",
    FaultKind.UNACCOUNTED_MEMORY: "it took more device memory than it may",
    FaultKind.MISBEHAVED: "it misbehaved",
    FaultKind.TEMPORARY: "it is to be restarted",
    FaultKind.REQUESTED: "it was asked to stop",
}


def for_clients(fault: Fault | None) -> str:
    """The fault of a worker in words for those who use it; None for one that only stopped."""
    return "it stopped" if fault is None else TOLD[fault.kind]


def without_directories(text: str, roots: frozenset[str]) -> str:
    """What a library says of one request, with paths of this host cut down to the names of files.

    Args:
        text: which may also have names of tensors and nodes that look like paths.
        roots: names in the root directory of this host, by which paths are told from those.
    """

    def name(found: re.Match[str]) -> str:
        _, root, *below = found[0].split("/")
        return below[-1] if root in roots else found[0]

    return _PATH.sub(name, text)
