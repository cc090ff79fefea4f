"""The one table of commands: name, role, arguments, what runs it, what shows its answer. `trtd --help` comes from it.

A command of the operators' socket takes its summary and its role from `trtd.wire.operator`. Handlers and renderers are
named by module and function and imported when they are needed, so that a command loads nothing that it does not use.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trtd.core.quantities import length_s
from trtd.errors import ErrorCode, StatusExitCode
from trtd.wire.operator import OPERATOR_COMMANDS, Role
from trtd.wire.tensorrt import FAULTS

MAX_CALLERS = 10_000
"""Requests that `bench` keeps under way; a queue takes far fewer."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument, as `argparse.ArgumentParser.add_argument` takes it."""

    names: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """One row.

    Attributes:
        name: on the command line.
        summary: one line for `--help`.
        handler: `module:function` below `trtd.cli`; takes the parsed arguments and returns an answer.
        renderer: `module:function`; writes the answer and returns the exit code.
        arguments: what it takes.
        role: least role at the operators' socket; None for a command that does not go there.
        hints: what to do about an error, where this command knows better than `trtd.errors`.
        exit_codes: exit codes of errors, where they differ from those of other commands.
    """

    name: str
    summary: str
    handler: str
    renderer: str
    arguments: tuple[Argument, ...] = ()
    role: Role | None = None
    hints: Mapping[ErrorCode, str] = field(default_factory=dict)
    exit_codes: Mapping[ErrorCode, int] = field(default_factory=dict)

    def run(self, args: argparse.Namespace) -> int:
        """Run the handler and show its answer.

        Raises:
            trtd.errors.TrtdError: as the handler does.
        """
        answer = load(self.handler)(args)
        code: int = load(self.renderer)(answer, args)
        return code


def load(target: str) -> Callable[..., Any]:
    """The function that a row names."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(f"trtd.cli.{module}"), name)
    return function


def _argument(*names: str, **options: Any) -> Argument:
    return Argument(names, options)


def _seconds(text: str) -> float:
    value = length_s(text)
    value = float(text) if value is None else value
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _callers(text: str) -> int:
    value = _count(text)
    if value > MAX_CALLERS:
        raise ValueError
    return value


# argparse names the type in its error: "invalid seconds above 0 value: 'x'".
_seconds.__name__ = "seconds above 0"
_count.__name__ = "whole number above 0"
_callers.__name__ = f"whole number from 1 to {MAX_CALLERS}"

_RUNTIME_DIR = _argument(
    "--runtime-dir", metavar="DIR", help="directory of the daemon's sockets (default: as the daemon finds it)"
)
_JSON = _argument("--json", action="store_true", help="print JSON")
_TENANT = _argument("tenant", metavar="TENANT", help="name of the tenant")
_TENANT_OR_ALL = (
    _argument("tenant", metavar="TENANT", nargs="?", help="name of the tenant"),
    _argument("--all", action="store_true", help="every tenant"),
)
_MODEL = _argument("model", metavar="MODEL", help="name of the model")
_VERSION = _argument("--version", metavar="VERSION", help="of the model (default: the newest)")
_CONFIG = _argument("--config", metavar="FILE", help="read this file in place of /etc/trtd/trtd.toml")
_INPUTS = (
    _argument(
        "--input",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="FILE.npy, random, zeros or ones, for one input; inputs that are not given are random",
    ),
    _argument(
        "--shape", metavar="NAME=DIMS", action="append", default=[], help="shape of a generated input, as x=1,3,224,224"
    ),
)

OPERATORS_HINT = "Ask for a place among operators or viewers in [operators] of the configuration."
START_HINT = "Start it with `trtd serve`, or name its directory with --runtime-dir."
DIRECTORY_HINT = "Choose a directory that is this user's alone, with --runtime-dir or daemon.runtime_dir."
SECOND_HINT = "Stop what is there, or give this daemon a directory or address of its own."
_HINTS = {ErrorCode.NOT_ALLOWED: OPERATORS_HINT, ErrorCode.UNREACHABLE: START_HINT}
_REPLACED_HINTS = {
    **_HINTS,
    ErrorCode.UNAVAILABLE: "Mend what the message names and give the command again; `trtd status` shows what serves.",
    ErrorCode.DEADLINE_EXCEEDED: "Look at `trtd status`: nothing was taken back, and what serves serves on.",
}
_REPLACED_TIMEOUT = _argument(
    "--timeout", metavar="S", type=_seconds, help="seconds to wait (default: 150 for each worker of a tenant)"
)
_CLIENT_HINTS = {
    ErrorCode.UNREACHABLE: START_HINT,
    ErrorCode.USAGE: "`trtd status` shows what is there.",
}
_LSB_CODES = {
    **dict.fromkeys(ErrorCode, int(StatusExitCode.UNKNOWN)),
    ErrorCode.UNREACHABLE: int(StatusExitCode.NOT_RUNNING),
}
_STATUS = next(row for row in OPERATOR_COMMANDS if row.name == "status")


def _operator_command(
    name: str,
    *arguments: Argument,
    hints: Mapping[ErrorCode, str] = _HINTS,
    exit_codes: Mapping[ErrorCode, int] | None = None,
) -> Command:
    row = next(row for row in OPERATOR_COMMANDS if row.name == name)
    return Command(
        name,
        row.summary,
        handler=f"operations:{name}",
        renderer=f"render:show_{name}",
        arguments=(*arguments, _JSON, _RUNTIME_DIR),
        role=row.role,
        hints=hints,
        exit_codes=exit_codes or {},
    )


COMMANDS: tuple[Command, ...] = (
    Command(
        "serve",
        "run the daemon in the foreground",
        handler="serve:serve",
        renderer="serve:exit_code",
        arguments=(
            _CONFIG,
            _argument(
                "--model",
                metavar="[NAME=]FILE",
                action="append",
                default=[],
                help="serve this ONNX file to tenant `default`; needs no configuration",
            ),
            _argument("--runtime-dir", metavar="DIR", help="directory of all sockets"),
            _argument("--log-format", choices=("auto", "console", "json"), help="how log lines look"),
            _argument("--log-level", choices=("debug", "info", "warning", "error"), help="least level written"),
        ),
        hints={ErrorCode.NOT_ALLOWED: DIRECTORY_HINT, ErrorCode.UNAVAILABLE: SECOND_HINT},
    ),
    _operator_command(
        "status",
        _argument("tenant", metavar="TENANT", nargs="?", help="show this tenant only"),
        _argument("--watch", action="store_true", help="show it again and again until Ctrl-C"),
        _argument("--wide", action="store_true", help="all columns, however wide the terminal is"),
        exit_codes=_LSB_CODES,
    ),
    Command(
        "top",
        "show tenants, traffic and memory on a live screen",
        handler="top:top",
        renderer="top:exit_code",
        arguments=(_argument("tenant", metavar="TENANT", nargs="?", help="show this tenant only"), _RUNTIME_DIR),
        role=_STATUS.role,
        hints=_HINTS,
    ),
    Command(
        "health",
        "say whether the daemon, or one tenant, is ready; for probes without HTTP",
        handler="operations:health",
        renderer="render:show_health",
        arguments=(
            _argument("--tenant", metavar="TENANT", help="of this tenant only"),
            _argument("--live", action="store_true", help="only whether the daemon answers"),
            _JSON,
            _RUNTIME_DIR,
        ),
        role=_STATUS.role,
        hints=_HINTS,
        exit_codes=_LSB_CODES,
    ),
    _operator_command(
        "drain",
        *_TENANT_OR_ALL,
        _argument("--timeout", metavar="S", type=_seconds, help="seconds to wait (default: daemon.drain_timeout_s)"),
    ),
    _operator_command("resume", *_TENANT_OR_ALL),
    _operator_command(
        "restart",
        _TENANT,
        _REPLACED_TIMEOUT,
        hints=_REPLACED_HINTS,
    ),
    _operator_command("fault", _TENANT, _argument("fault", metavar="FAULT", choices=FAULTS, help=", ".join(FAULTS))),
    _operator_command("reload", _REPLACED_TIMEOUT, hints=_REPLACED_HINTS),
    Command(
        "infer",
        "send one request and print its answer",
        handler="infer:infer",
        renderer="infer:show",
        arguments=(
            _TENANT,
            _MODEL,
            *_INPUTS,
            _VERSION,
            _argument(
                "--output", metavar="NAME", action="append", help="this output only; may be given again (default: all)"
            ),
            _argument("--save", metavar="FILE.npz", help="write the outputs to this file"),
            _argument("--timeout", metavar="S", type=_seconds, default=30.0, help="seconds to wait (default: 30)"),
            _RUNTIME_DIR,
        ),
        hints=_CLIENT_HINTS,
    ),
    Command(
        "bench",
        "measure throughput and latency of a model in a closed loop",
        handler="bench:bench",
        renderer="bench:show",
        arguments=(
            _TENANT,
            _MODEL,
            *_INPUTS,
            _VERSION,
            _argument(
                "--bare",
                action="store_true",
                help="without the daemon: the model in this process, one caller for each slot of the tenant",
            ),
            _CONFIG,
            _argument("--concurrency", metavar="N", type=_callers, default=8, help="requests under way (default: 8)"),
            _argument("--seconds", metavar="S", type=_seconds, help="how long to measure (default: 5)"),
            _argument("--requests", metavar="N", type=_count, help="measure so many requests instead"),
            _argument("--batch", metavar="B", type=_count, default=1, help="items in each request (default: 1)"),
            _argument(
                "--warmup", metavar="S", type=_seconds, default=0.5, help="seconds before measuring (default: 0.5)"
            ),
            _argument("--timeout", metavar="S", type=_seconds, default=30.0, help="seconds per request (default: 30)"),
            _JSON,
            _RUNTIME_DIR,
        ),
        hints=_CLIENT_HINTS,
    ),
    Command(
        "config",
        "check the configuration, or show what is in force",
        handler="serve:config",
        renderer="serve:show_config",
        arguments=(
            _argument("action", choices=("check", "show"), help="find every problem, or print every value"),
            _CONFIG,
            _argument("--origin", action="store_true", help="with show: where each value comes from"),
        ),
    ),
    Command(
        "doctor",
        "look at GPU, driver, TensorRT and configured plans, and say what to do",
        handler="doctor:doctor",
        renderer="doctor:show",
        arguments=(
            _CONFIG,
            _argument(
                "--wait-for-devices",
                metavar="S",
                type=_seconds,
                help="only wait, for at most S seconds, until the device nodes that tenants need are there",
            ),
            _JSON,
        ),
    ),
    Command(
        "demo",
        "show the daemon at work: three tenants, a killed worker, no lost request",
        handler="demo:demo",
        renderer="demo:exit_code",
        arguments=(
            _argument("--seconds", metavar="S", type=_seconds, default=3.0, help="length of the load (default: 3)"),
            _argument(
                "--gpu",
                metavar="DIR",
                nargs="?",
                const="",
                help="TensorRT plans on this host's GPU instead: DIR has plans/ and references/ "
                "(default: $TRTD_GPU_ASSETS, else here)",
            ),
        ),
    ),
    Command(
        "support-bundle",
        "collect configuration, status, faults, versions and log in one archive, without secrets",
        handler="bundle:bundle",
        renderer="bundle:show_path",
        arguments=(
            _argument("--output", metavar="FILE.tar.gz", help="where to (default: trtd-support-TIME.tar.gz, here)"),
            _argument("--log", metavar="FILE", help="log of the daemon (default: the journal)"),
            _CONFIG,
            _RUNTIME_DIR,
        ),
    ),
    Command(
        "completion",
        "print a shell's completion script, or the names that it completes",
        handler="completion:completion",
        renderer="completion:show",
        arguments=(
            _argument(
                "what",
                choices=("bash", "zsh", "fish", "tenants", "models"),
                help="a shell, tenants, or models of a tenant",
            ),
            _argument("tenant", metavar="TENANT", nargs="?", help="name of the tenant, with models"),
        ),
    ),
    Command("version", "print the version", handler="serve:version", renderer="serve:show_version"),
)
