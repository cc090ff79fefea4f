"""Entry point of the `trtd` command: parse, run, and turn every error into one line and an exit code.

What the commands are is in `trtd.cli.commands`. Nothing heavy is imported here: `trtd status` has to answer at once.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import trtd
from trtd.cli import commands, streams
from trtd.cli.exits import BROKEN_PIPE, EXIT_CODES, INTERRUPTED
from trtd.cli.operator import CommandFailed
from trtd.errors import ErrorCode, ExitCode, TrtdError, Usage

OS_EXIT_CODES = {
    errno.ENOENT: ExitCode.USAGE,
    errno.ENOTDIR: ExitCode.USAGE,
    errno.EISDIR: ExitCode.USAGE,
    errno.ENAMETOOLONG: ExitCode.USAGE,
    errno.EACCES: ExitCode.NO_PERMISSION,
    errno.EPERM: ExitCode.NO_PERMISSION,
    errno.EROFS: ExitCode.NO_PERMISSION,
}
"""What the host's refusals end a command with; any other one is IO_FAILED."""
SHOWN_NAME = 200
"""Characters of a file name in an error."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Usage(f"{self.prog}: {message}")


def _check_command(argv: Sequence[str]) -> None:
    """Suggest the nearest command for a word that is none; argparse would list all of them.

    Raises:
        Usage: the first word names no command.
    """
    names = [command.name for command in commands.COMMANDS]
    word = next((one for one in argv if not one.startswith("-")), None)
    if word is not None and word not in names:
        near = difflib.get_close_matches(word[:64], names, n=1, cutoff=0.6)
        raise Usage(f"there is no command {word[:64]!r}" + (f", did you mean {near[0]}?" if near else ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: that of the command, or that of its error's code; 130 after Ctrl-C.
    """
    streams.open_missing()
    is_debug = os.environ.get("TRTD_DEBUG") == "1"
    command: commands.Command | None = None
    try:
        _check_command(sys.argv[1:] if argv is None else argv)
        parser = build_parser()
        args = parser.parse_args(argv)
        if "command" not in args:
            parser.print_help()
            return ExitCode.OK
        command = args.command
        code = args.command.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough.
        streams.discard_output()
        return BROKEN_PIPE
    except TrtdError as error:
        if is_debug:
            raise
        return _tell(error, command)
    except OSError as error:
        if is_debug:
            raise
        return _tell_refusal(error)
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
    subparsers = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
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
    end = "" if message.endswith("?") else "."
    print(f"trtd: {cause.code}: {message}{end} {_hint(cause, command)}".rstrip(), file=sys.stderr)
    own_codes = {} if command is None else command.exit_codes
    return own_codes.get(cause.code, EXIT_CODES[cause.code])


def _hint(error: TrtdError, command: commands.Command | None) -> str:
    """What to do: who raised the error knows best, then the command, then the code."""
    if error.hint is not None:
        return " ".join(error.hint.split())
    if error.code is ErrorCode.USAGE:
        general = "See `trtd --help`." if command is None else f"See `trtd {command.name} --help`."
    else:
        general = error.traits.hint
    return general if command is None else command.hints.get(error.code, general)


def _tell_refusal(error: OSError) -> int:
    """Say what the host refused, which is no defect of ours: a full disk, a file that is not there."""
    name = error.filename
    if name is None:
        # No file was named: it is what was printed, as a rule.
        streams.discard_output()
    where = "the output" if name is None else str(name)
    where = where if len(where) <= SHOWN_NAME else f"{where[:SHOWN_NAME]}..."
    code = OS_EXIT_CODES.get(error.errno or 0, ExitCode.IO_FAILED)
    print(f"trtd: {' '.join(where.split())}: {error.strerror or error}.", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
