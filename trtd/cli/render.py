"""How answers of the daemon are shown: pictures and lines for people, JSON for programs.

What a status record looks like is in `trtd.cli.picture`. Standard library only, for speed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, cast

from trtd.cli.operator import CommandFailed
from trtd.cli.picture import status_lines
from trtd.cli.terminal import CLEAR_SCREEN, columns, has_colour, is_terminal
from trtd.errors import ExitCode, StatusExitCode
from trtd.wire.status import Status, summary


def show_status(records: Iterator[Mapping[str, Any]], args: argparse.Namespace) -> int:
    """Print each record. The exit code is that of the last one."""
    code = StatusExitCode.UNKNOWN
    for record in records:
        if args.json:
            print(json.dumps(record, indent=None if args.watch else 2), flush=True)
        else:
            width = None if args.wide else columns(sys.stdout)
            picture = "\n".join(status_lines(record, colour=has_colour(sys.stdout), width=width))
            clear = CLEAR_SCREEN if args.watch and is_terminal(sys.stdout) else ""
            print(clear + picture, flush=True)
        healths = {tenant["health"] for tenant in record["tenants"]} if args.tenant else {record["health"]}
        code = StatusExitCode.ALL_READY if healths == {"ready"} else StatusExitCode.DEGRADED
    return code


def show_health(record: Mapping[str, Any], args: argparse.Namespace) -> int:
    """One line, and the exit code that probes look at."""
    asked = record["tenants"][0] if args.tenant else record
    is_well = args.live or asked["is_ready"]
    line = "live" if args.live else "ready" if is_well else f"not ready: {summary(cast('Status', record))}"
    print(json.dumps({"v": 1, "is_live": True, "is_ready": asked["is_ready"]}) if args.json else line)
    return StatusExitCode.ALL_READY if is_well else StatusExitCode.DEGRADED


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
