"""The table of commands, exit codes, and what one error line looks like."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trtd.cli import commands
from trtd.cli.commands import COMMANDS
from trtd.cli.exits import EXIT_CODES
from trtd.cli.main import build_parser, main
from trtd.errors import ErrorCode, ExitCode, Internal, Overloaded, StatusExitCode, Usage
from trtd.wire.operator import OPERATOR_COMMANDS

SHOWING_STATUS = {"top", "health"}
"""Commands that show the status record in another way."""
ROWS = {command.name: command for command in COMMANDS}


def test_every_command_of_the_operators_socket_has_a_row():
    """Each command of the wire table stands on the command line, with its role, its summary and all its arguments."""
    for row in OPERATOR_COMMANDS:
        command = ROWS[row.name]
        assert (command.role, command.summary) == (row.role, row.summary)
        names = {name.lstrip("-").replace("-", "_") for argument in command.arguments for name in argument.names}
        assert {name.removesuffix("_s") for name, _ in row.args} <= names
    assert {name for name, command in ROWS.items() if command.role} - SHOWING_STATUS == {
        row.name for row in OPERATOR_COMMANDS
    }


def test_every_row_has_a_handler_and_a_renderer():
    """What a row names can be imported and called."""
    for command in COMMANDS:
        assert callable(commands.load(command.handler))
        assert callable(commands.load(command.renderer))


def test_only_top_pays_for_its_screen():
    """What draws the live screen is imported by no other command."""
    others = sorted({f"trtd.cli.{command.handler.partition(':')[0]}" for command in COMMANDS if command.name != "top"})
    program = (
        f"import importlib, sys; [importlib.import_module(name) for name in {others}]; print('rich' in sys.modules)"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert outcome.stdout == "False\n"


def test_every_error_code_has_an_exit_code():
    """No error ends a command without a documented exit code, and those of `trtd status` are of its own vocabulary."""
    assert set(EXIT_CODES) == set(ErrorCode)
    assert set(EXIT_CODES.values()) <= set(ExitCode) - {ExitCode.OK}
    assert set(ROWS["status"].exit_codes) == set(ErrorCode)
    assert set(ROWS["status"].exit_codes.values()) <= set(StatusExitCode)


def test_help_is_made_from_the_table(capsys):
    """`trtd --help` names every command with its summary, and the help of a command the role that it needs."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{command.name} {command.summary}" in text for command in COMMANDS)
    with pytest.raises(SystemExit):
        main(["drain", "--help"])
    assert "Needs the role operator." in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["fly"], "there is no command 'fly'."),
        (["statsu"], "did you mean status?"),
        (["x" * 5000], "there is no command 'xx"),
        (["drain", "a", "--timeout", "-1"], "invalid seconds above 0 value: '-1'"),
        (["bench", "a", "m", "--concurrency", "0"], "invalid whole number from 1 to 10000 value: '0'"),
        (["status", "--colour"], "--colour"),
    ],
)
def test_wrong_use_is_one_line(argv, text, capsys):
    """A mistake on the command line is one line on stderr and exit code 64."""
    assert main(argv) == ExitCode.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("trtd: usage: ")
    assert text in told.err
    assert told.err.count("\n") == 1


def test_errors_are_one_line(monkeypatch, capsys):
    """A typed error is its code, its message and its hint in one line, and its exit code."""
    fail_with(monkeypatch, Overloaded("the queue\nis full"))
    assert main(["version"]) == ExitCode.TEMPORARY
    assert capsys.readouterr().err == "trtd: overloaded: the queue is full. Send again later, and less at a time.\n"


def test_a_defect_is_one_line_too(monkeypatch, capsys):
    """An unforeseen exception shows no traceback, unless TRTD_DEBUG=1 asks for it."""
    fail_with(monkeypatch, RuntimeError("what\nis this"))
    assert main(["version"]) == ExitCode.INTERNAL
    text = "trtd: internal: RuntimeError: what is this. Set TRTD_DEBUG=1 for the traceback.\n"
    assert capsys.readouterr().err == text
    monkeypatch.setenv("TRTD_DEBUG", "1")
    with pytest.raises(RuntimeError):
        main(["version"])
    fail_with(monkeypatch, Internal("x"))
    with pytest.raises(Internal):
        main(["version"])


def test_ctrl_c(monkeypatch, capsys):
    """Ctrl-C ends a command with 130 and without a word."""
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["version"]) == 130
    assert capsys.readouterr() == ("", "")


def test_version(capsys):
    """`trtd version` and `trtd --version` print the version of the package."""
    assert main(["version"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("trtd 0.")
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == told


def test_timeouts_have_no_abbreviations():
    """A flag has to be written out, so that a new flag never changes what an old command line means."""
    with pytest.raises(Exception, match="unrecognized"):
        build_parser().parse_args(["drain", "a", "--time", "1"])


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(target: str) -> None:
        raise error

    monkeypatch.setattr(commands, "load", fail)


def test_seconds_on_the_command_line_may_have_a_unit():
    """As in the configuration; a bare number is seconds."""
    parser = build_parser()
    for text, seconds in (("2m", 120.0), ("500ms", 0.5), ("3", 3.0)):
        assert parser.parse_args(["drain", "--all", "--timeout", text]).timeout == seconds
    for text in ("0s", "-1s", "5x", "inf", ""):
        with pytest.raises(Usage):
            parser.parse_args(["drain", "--all", f"--timeout={text}"])
