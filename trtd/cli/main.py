"""Entry point of the `trtd` command: parse, run, and turn every error into one line and an exit code.

What the commands are is in `trtd.cli.commands`. Nothing heavy is imported here: `trtd status` has to answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import trtd
from trtd.cli import commands
from trtd.cli.exits import BROKEN_PIPE, EXIT_CODES, INTERRUPTED
from trtd.cli.operator import CommandFailed
from trtd.errors import ErrorCode, ExitCode, TrtdError, Usage


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Usage(f"{self.prog}: {message}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: that of the command, or that of its error's code; 130 after Ctrl-C.
    """
    is_debug = os.environ.get("TRTD_DEBUG") == "1"
    command: commands.Command | None = None
    try:
        args = build_parser().parse_args(argv)
        command = args.command
        code = args.command.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough. What Python still holds for it must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except TrtdError as error:
        if is_debug:
            raise
        return _tell(error, command)
    except Exception as error:
        if is_debug:
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"trtd: {ErrorCode.INTERNAL}: {text}. Set TRTD_DEBUG=1 for the traceback.", file=sys.stderr)
        return ExitCode.INTERNAL
    return int(code)


def build_parser() -> argparse.ArgumentParser:
    """The parser, generated from the table of commands."""
    parser = _Parser(prog="trtd", description="A supervised multi-tenant inference daemon.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"trtd {trtd.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for command in commands.COMMANDS:
        needs = "" if command.role is None else f" Needs the role {command.role.name.lower()}."
        subparser = subparsers.add_parser(
            command.name, help=command.summary, description=f"{_sentence(command.summary)}{needs}", allow_abbrev=False
        )
        subparser.set_defaults(command=command)
        for argument in command.arguments:
            subparser.add_argument(*argument.names, **argument.options)
    return parser


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + "."


def _tell(error: TrtdError, command: commands.Command | None) -> int:
    cause = error.cause if isinstance(error, CommandFailed) else error
    message = " ".join(cause.message.split()).rstrip(".")
    hint = cause.traits.hint if command is None else command.hints.get(cause.code, cause.traits.hint)
    print(f"trtd: {cause.code}: {message}. {hint}", file=sys.stderr)
    own_codes = {} if command is None else command.exit_codes
    return own_codes.get(cause.code, EXIT_CODES[cause.code])


if __name__ == "__main__":
    sys.exit(main())
