"""How answers of the daemon look: tables for people, JSON for programs, progress on a terminal.

Standard library only, for speed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from trtd.cli.operator import CommandFailed
from trtd.errors import ExitCode, StatusExitCode

RESET = "\x1b[0m"
COLOURS = {"ready": "\x1b[32m", "degraded": "\x1b[33m", "waiting": "\x1b[33m", "draining": "\x1b[33m"}
OTHER_COLOUR = "\x1b[31m"
CLEAR_SCREEN = "\x1b[H\x1b[2J"
CLEAR_LINE = "\r\x1b[K"
NOTHING = "-"
LONGEST_CAUSE = 40

STATUS_COLUMNS = (
    "TENANT", "STATE", "SINCE", "PID", "GEN", "RESTARTS", "LAST CAUSE", "QUEUE", "IN FLIGHT", "REQ/S", "P50", "P99",
    "MEMORY",
)  # fmt: skip
LEFT_COLUMNS = {"TENANT", "STATE", "LAST CAUSE"}

pause = time.sleep
"""Between two pictures of `--watch`."""


def is_terminal(stream: TextIO) -> bool:
    """Whether escape sequences mean something to who reads the stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """Whether to use colour: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: set[str]) -> list[str]:
    """Lines of a table: aligned columns, two spaces between them, nothing after the last one."""
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    lines = []
    for row in (columns, *rows):
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def duration(seconds: float | None) -> str:
    """A length of time, in the unit that suits it."""
    if seconds is None:
        return NOTHING
    if seconds < 0.000_999_5:
        return f"{seconds * 1e6:.0f}us"
    if seconds < 0.999_5:
        return f"{seconds * 1e3:.3g}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86_400
    if minutes < 60:
        return f"{minutes:.0f}m"
    return f"{hours:.0f}h" if hours < 48 else f"{days:.0f}d"


def size(count_bytes: int) -> str:
    """A size in bytes, in the binary unit that suits it."""
    value = float(count_bytes)
    for unit in ("B", "K", "M", "G"):
        if value < 1024:
            return f"{value:.0f}{unit}"
        value /= 1024
    return f"{value:.1f}T"


def status_lines(record: Mapping[str, Any], *, colour: bool) -> list[str]:
    """The picture of a status record: one row for each worker, then what is wrong and what the daemon is."""
    rows = [row for tenant in record["tenants"] for row in _tenant_rows(tenant)]
    lines = table(STATUS_COLUMNS, rows, left=LEFT_COLUMNS)
    if colour:
        lines = [lines[0], *(_coloured(line, row[1]) for line, row in zip(lines[1:], rows, strict=True))]
    lines += [f"{tenant['name']}: {tenant['reason']}" for tenant in record["tenants"] if tenant["reason"]]
    daemon, router = record["daemon"], record["router"]
    stopping = ", stopping" if daemon["is_stopping"] else ""
    lines.append(
        f"daemon pid {daemon['pid']}, up {duration(daemon['uptime_s'])}{stopping}; "
        f"router {router['state']}, pid {router['pid'] or NOTHING}, generation {router['generation']}, "
        f"{size(router['rss_bytes'])}; isolation {_isolation(record)}"
    )
    return lines


def _tenant_rows(tenant: Mapping[str, Any]) -> Iterator[list[str]]:
    recent = tenant["recent"]
    traffic = [
        str(tenant["queued"]),
        str(tenant["leased"]),
        f"{recent['per_s']:.4g}",
        duration(recent["p50_s"]),
        duration(recent["p99_s"]),
    ]
    workers = tenant["workers"]
    if not workers:
        yield [tenant["name"], tenant["health"], *[NOTHING] * 5, *traffic, NOTHING]
    for index, worker in enumerate(workers):
        yield [
            tenant["name"] if index == 0 else worker["name"],
            _worker_state(tenant["health"], worker) if index == 0 else worker["state"],
            duration(worker["since_s"]),
            str(worker["pid"] or NOTHING),
            str(worker["generation"]),
            str(worker["restarts"]),
            _cause(worker["last_fault"]),
            *(traffic if index == 0 else [NOTHING] * len(traffic)),
            _memory(worker),
        ]


def _worker_state(health: str, worker: Mapping[str, Any]) -> str:
    if worker["state"] in {health, "ready"} or health in {"drained", "draining"}:
        return health
    wait = worker["restart_in_s"]
    return f"{health}: {worker['state']}" + (f" {duration(wait)}" if wait else "")


def _cause(fault: Mapping[str, Any] | None) -> str:
    if fault is None:
        return NOTHING
    text: str = fault["message"] or fault["kind"]
    return text if len(text) <= LONGEST_CAUSE else text[: LONGEST_CAUSE - 3] + "..."


def _memory(worker: Mapping[str, Any]) -> str:
    if not worker["rss_bytes"]:
        return NOTHING
    limit = worker["memory_limit_bytes"]
    device = worker["device"]
    on_device = f" +{size(device['driver_bytes'] or device['live_bytes'])} gpu" if device else ""
    return size(worker["rss_bytes"]) + (f"/{size(limit)}" if limit else "") + on_device


def _isolation(record: Mapping[str, Any]) -> str:
    return ", ".join(sorted({tenant["isolation"] for tenant in record["tenants"]})) or NOTHING


def _coloured(line: str, state: str) -> str:
    return f"{COLOURS.get(state, OTHER_COLOUR)}{line}{RESET}"


def show_status(records: Iterator[Mapping[str, Any]], args: argparse.Namespace) -> int:
    """Print each record. The exit code is that of the last one."""
    code = StatusExitCode.UNKNOWN
    for record in records:
        if args.json:
            print(json.dumps(record, indent=None if args.watch else 2), flush=True)
        else:
            picture = "\n".join(status_lines(record, colour=has_colour(sys.stdout)))
            clear = CLEAR_SCREEN if args.watch and is_terminal(sys.stdout) else ""
            print(clear + picture, flush=True)
        healths = {tenant["health"] for tenant in record["tenants"]} if args.tenant else {record["health"]}
        code = StatusExitCode.ALL_READY if healths == {"ready"} else StatusExitCode.DEGRADED
    return code


def show_drain(answer: Mapping[str, Any], args: argparse.Namespace) -> int:
    """Say which tenants are drained."""
    return _show_done(answer, args, "drained")


def show_resume(answer: Mapping[str, Any], args: argparse.Namespace) -> int:
    """Say which tenants serve again."""
    return _show_done(answer, args, "resumed")


def show_restart(answer: Mapping[str, Any], args: argparse.Namespace) -> int:
    """Say whose workers were replaced."""
    return _show_done(answer, args, "restarted")


def show_fault(answer: Mapping[str, Any], args: argparse.Namespace) -> int:
    """Say which workers were told."""
    if args.json:
        print(json.dumps(answer, indent=2))
    else:
        for tenant, fault in answer["tenants"].items():
            print(f"{tenant}: {fault} in {', '.join(answer['workers']) or 'no worker, none is alive'}")
    return ExitCode.OK


def _show_done(answer: Mapping[str, Any], args: argparse.Namespace, participle: str) -> int:
    if args.json:
        print(json.dumps(answer, indent=2))
    else:
        for tenant in answer["tenants"]:
            print(f"{tenant} {participle}")
    return ExitCode.OK


def show_reload(answer: Mapping[str, Any], args: argparse.Namespace) -> int:
    """Say what the new configuration changed."""
    if args.json:
        print(json.dumps(answer, indent=2))
        return ExitCode.OK
    changes = [f"{what}: {', '.join(names)}" for what, names in answer.items() if isinstance(names, list) and names]
    print("reloaded; " + ("; ".join(changes) or "nothing changed"))
    return ExitCode.OK


def show_details(error: CommandFailed, args: argparse.Namespace) -> None:
    """Print what the daemon told beside an error, such as the requests that a drain left unfinished."""
    if args.json:
        print(json.dumps({"error": {"code": error.cause.code, "message": error.message, "details": error.details}}))
        return
    for tenant, unfinished in error.details.get("unfinished", {}).items():
        for request_id in unfinished["request_ids"]:
            print(f"{tenant} {request_id}")
        left = unfinished["total"] - len(unfinished["request_ids"])
        if left > 0:
            print(f"{tenant} and {left} more")


class ProgressLine:
    """One line on a terminal's stderr that tells how a command goes; nothing elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_shown = False

    def show(self, progress: Mapping[str, Any]) -> None:
        """Replace the line."""
        if is_terminal(self._stream):
            text = ", ".join(f"{name} {value}" for name, value in progress.items())
            self._stream.write(CLEAR_LINE + text[:100])
            self._stream.flush()
            self._is_shown = True

    def clear(self) -> None:
        """Take the line away; repeatable."""
        if self._is_shown:
            self._stream.write(CLEAR_LINE)
            self._stream.flush()
            self._is_shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()
