"""Handlers of the commands that go to the operators' socket; their answers are shown by `trtd.cli.render`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from trtd.cli import operator, render, terminal
from trtd.errors import Usage

Answer = dict[str, Any]

WATCH_EVERY_S = 1.0


def status(args: argparse.Namespace) -> Iterator[Answer]:
    """The status record, once, or every second for ever."""
    yield _status(args)
    while args.watch:
        terminal.pause(WATCH_EVERY_S)
        yield _status(args)


def _status(args: argparse.Namespace) -> Answer:
    return operator.call(operator.find_runtime_dir(args.runtime_dir), "status", {"tenant": args.tenant})


def health(args: argparse.Namespace) -> Answer:
    """The status record, of the tenant that is asked about or of all."""
    return operator.call(operator.find_runtime_dir(args.runtime_dir), "status", {"tenant": args.tenant})


def drain(args: argparse.Namespace) -> Answer:
    """Drain a tenant, or all, and wait until the last answer is out."""
    _check_target(args)
    told = {"tenant": args.tenant, "all": args.all or None, "timeout_s": args.timeout}
    return _call(args, "drain", told)


def resume(args: argparse.Namespace) -> Answer:
    """Let a tenant serve again."""
    _check_target(args)
    return _call(args, "resume", {"tenant": args.tenant, "all": args.all or None})


def restart(args: argparse.Namespace) -> Answer:
    """Replace a tenant's workers."""
    return _call(args, "restart", {"tenant": args.tenant, "timeout_s": args.timeout})


def fault(args: argparse.Namespace) -> Answer:
    """Make a fault in a tenant's workers."""
    return _call(args, "fault", {"tenant": args.tenant, "fault": args.fault})


def reload(args: argparse.Namespace) -> Answer:
    """Read the configuration again, and wait until the workers obey it."""
    return _call(args, "reload", {"timeout_s": args.timeout})


def _call(args: argparse.Namespace, command: str, told: Answer) -> Answer:
    runtime_dir = operator.find_runtime_dir(args.runtime_dir)
    with terminal.ProgressLine() as line:
        try:
            return operator.call(runtime_dir, command, told, on_progress=line.show)
        except operator.CommandFailed as error:
            line.clear()
            render.show_details(error, args)
            raise


def _check_target(args: argparse.Namespace) -> None:
    if bool(args.tenant) == bool(args.all):
        raise Usage(f"trtd {args.command.name}: name a tenant, or give --all")
