"""trtd(1): the table of commands as a man page."""

from __future__ import annotations

from collections.abc import Iterator

from trtd.cli.commands import COMMANDS, Argument, Command
from trtd.cli.exits import BROKEN_PIPE, INTERRUPTED
from trtd.errors import ExitCode, StatusExitCode
from trtd.manual.roff import bold, heading, italic, page, paragraph, subheading, tagged

EXIT_CODES = {
    ExitCode.OK: "all went well",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.BAD_DATA: "an input, a model or an answer is wrong",
    ExitCode.UNAVAILABLE: "no daemon is running, or what was asked for cannot be had now",
    ExitCode.INTERNAL: "a defect of trtd",
    ExitCode.IO_FAILED: "output could not be written, or a file could not be read or written",
    ExitCode.TEMPORARY: "cut short, or refused for now: the same may work later",
    ExitCode.NO_PERMISSION: "this user may not",
    ExitCode.BAD_CONFIG: "the configuration cannot be used",
    INTERRUPTED: "ended by Ctrl-C",
    BROKEN_PIPE: "the reader of the output went away",
}
STATUS_EXIT_CODES = {
    StatusExitCode.ALL_READY: "every tenant is ready",
    StatusExitCode.DEGRADED: "a tenant is not",
    StatusExitCode.NOT_RUNNING: "no daemon is running",
    StatusExitCode.UNKNOWN: "the daemon does not say",
}


def commands_page() -> str:
    """The text of `etc/man/trtd.1`."""
    return page("trtd", 1, "serve models to several tenants, and look after the daemon that does", _body())


def _body() -> Iterator[str]:
    yield heading("synopsis")
    yield f"{bold('trtd')} {italic('COMMAND')} [{italic('ARGUMENT')} ...]"
    yield heading("description")
    yield paragraph(
        "trtd serves models for several tenants, each in worker processes of its own. A worker that dies, hangs or"
        " reports a sticky error is replaced while its requests are replayed. The daemon is described in trtd(8), its"
        " configuration in trtd.toml(5)."
    )
    yield paragraph(
        "Commands for operators talk to the daemon through the unix socket in its runtime directory. The kernel tells"
        " the daemon who is asking. Root and the daemon's own user may do everything; `[operators]` in the"
        " configuration names others. An error is one line on stderr: its code, what happened, what to do."
    )
    yield heading("commands")
    for command in COMMANDS:
        yield from _command(command)
    yield heading("exit status")
    for code, meaning in EXIT_CODES.items():
        yield tagged(bold(str(int(code))), meaning)
    yield paragraph("`trtd status` follows the manner of init scripts instead:")
    for code, meaning in STATUS_EXIT_CODES.items():
        yield tagged(bold(str(int(code))), meaning)
    yield heading("environment")
    yield tagged(
        bold("TRTD_DAEMON__RUNTIME_DIR"), "Directory of the daemon's sockets, for commands without --runtime-dir."
    )
    yield tagged(bold("NO_COLOR"), "No colour, also on a terminal.")
    yield tagged(bold("TRTD_DEBUG"), "With the value 1 an error shows where in the code it came from.")
    yield heading("see also")
    yield f"{bold('trtd')}(8), {bold('trtd.toml')}(5)"


def _command(command: Command) -> Iterator[str]:
    yield subheading(f"trtd {command.name}")
    yield " ".join([bold(f"trtd {command.name}"), *(_usage(argument) for argument in command.arguments)])
    needs = "" if command.role is None else f" Needs the role {command.role.name.lower()}."
    yield paragraph(f"{command.summary[0].upper()}{command.summary[1:]}.{needs}")
    for argument in command.arguments:
        yield tagged(_tag(argument), _sentence(str(argument.options.get("help", ""))))


def is_flag(argument: Argument) -> bool:
    """Whether it begins with a hyphen; others go by their position."""
    return argument.names[0].startswith("-")


def takes_value(argument: Argument) -> bool:
    """Whether a word follows the flag."""
    return is_flag(argument) and argument.options.get("action") in {None, "append"}


def value_name(argument: Argument) -> str:
    """What stands for the value in a usage line."""
    choices = argument.options.get("choices")
    named = argument.options.get("metavar")
    return str(named) if named else "|".join(choices) if choices else argument.names[0].lstrip("-").upper()


def _usage(argument: Argument) -> str:
    if is_flag(argument):
        return f"[{_tag(argument)}]"
    return f"[{_tag(argument)}]" if argument.options.get("nargs") == "?" else _tag(argument)


def _tag(argument: Argument) -> str:
    if not is_flag(argument):
        return italic(value_name(argument))
    names = ", ".join(bold(name) for name in argument.names)
    if not takes_value(argument):
        return names
    value = italic(value_name(argument))
    return f"{names} [{value}]" if argument.options.get("nargs") == "?" else f"{names} {value}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
