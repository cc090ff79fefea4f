"""Completions for bash, zsh and fish, made from the table of commands.

What a word can be follows from the argument's choices, or from its metavar: a file, a directory, a tenant, a model.
Names of tenants and models come from `trtd completion`, so from the running daemon or else from the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator

from trtd.cli.commands import COMMANDS, Argument, Command
from trtd.manual.commands import is_flag, takes_value

KINDS = {
    "FILE": "files",
    "FILE.npz": "files",
    "FILE.tar.gz": "files",
    "DIR": "directories",
    "TENANT": "tenants",
    "MODEL": "models",
}
MADE_BY = "# Made by scripts/manual from the code. Changes here are lost."


def flags(command: Command) -> list[Argument]:
    """The arguments that begin with a hyphen."""
    return [argument for argument in command.arguments if is_flag(argument)]


def positions(command: Command) -> list[Argument]:
    """The arguments that go by their place."""
    return [argument for argument in command.arguments if not is_flag(argument)]


def kind(argument: Argument) -> str:
    """What completes its value: `choices`, a value of `KINDS`, or `nothing`."""
    if argument.options.get("choices"):
        return "choices"
    return KINDS.get(str(argument.options.get("metavar", "")), "nothing")


def choices(argument: Argument) -> str:
    """The words that it may be, with spaces between."""
    return " ".join(argument.options.get("choices", ()))


def _help(argument: Argument) -> str:
    return str(argument.options.get("help", ""))


# bash

_BASH = """\
_trtd() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command= tenant= position=0 is_value= index
    for ((index = 1; index < COMP_CWORD; index++)); do
        if [[ -n $is_value ]]; then
            is_value=
        elif [[ -z $command ]]; then
            command=${{COMP_WORDS[index]}}
        else
            case $command:${{COMP_WORDS[index]}} in
            {value_flags}) is_value=1 ;;
            *:-*) ;;
            *)
                [[ $position -gt 0 ]] || tenant=${{COMP_WORDS[index]}}
                position=$((position + 1))
                ;;
            esac
        fi
    done
    COMPREPLY=()
    if [[ -z $command ]]; then
        COMPREPLY=($(compgen -W "{commands} --help" -- "$word"))
    elif [[ -n $is_value ]]; then
        case $command:$previous in
{values}
        esac
    elif [[ $word == -* ]]; then
        case $command in
{flags}
        esac
    else
        case $command:$position in
{positions}
        esac
    fi
}}
complete -F _trtd trtd
"""

_BASH_ACTIONS = {
    "files": 'COMPREPLY=($(compgen -f -- "$word")); compopt -o filenames 2>/dev/null',
    "directories": 'COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null',
    "tenants": 'COMPREPLY=($(compgen -W "$(trtd completion tenants 2>/dev/null)" -- "$word"))',
    "models": 'COMPREPLY=($(compgen -W "$(trtd completion models "$tenant" 2>/dev/null)" -- "$word"))',
}


def bash() -> str:
    """The text of `etc/completions/trtd.bash`."""
    with_value = [f"{command.name}:{name}" for command in COMMANDS for name in _value_flags(command)]
    values = [
        _bash_case(f"{command.name}:{name}", argument)
        for command in COMMANDS
        for argument in flags(command)
        for name in argument.names
        if takes_value(argument) and kind(argument) != "nothing"
    ]
    of_command = [
        f'        {command.name}) COMPREPLY=($(compgen -W "{_flag_words(command)}" -- "$word")) ;;'
        for command in COMMANDS
    ]
    places = [
        _bash_case(f"{command.name}:{place}", argument)
        for command in COMMANDS
        for place, argument in enumerate(positions(command))
        if kind(argument) != "nothing"
    ]
    return f"{MADE_BY}\n" + _BASH.format(
        commands=" ".join(command.name for command in COMMANDS),
        value_flags=" | ".join(with_value),
        values="\n".join(values),
        flags="\n".join(of_command),
        positions="\n".join(places),
    )


def _value_flags(command: Command) -> Iterator[str]:
    for argument in flags(command):
        if takes_value(argument):
            yield from argument.names


def _flag_words(command: Command) -> str:
    return " ".join([*(name for argument in flags(command) for name in argument.names), "--help"])


def _bash_case(pattern: str, argument: Argument) -> str:
    words = f'COMPREPLY=($(compgen -W "{choices(argument)}" -- "$word"))'
    return f"        {pattern}) {_BASH_ACTIONS.get(kind(argument), words)} ;;"


# zsh

_ZSH = """\
#compdef trtd
{made_by}

_trtd_tenants() {{
    local -a names
    names=(${{(f)"$(trtd completion tenants 2>/dev/null)"}})
    compadd -a names
}}

_trtd_models() {{
    local -a names
    names=(${{(f)"$(trtd completion models "$line[1]" 2>/dev/null)"}})
    compadd -a names
}}

_trtd() {{
    local context state state_descr line
    typeset -A opt_args
    local -a commands
    commands=(
{commands}
    )
    _arguments -C '(- *)--help[show what there is]' '1:command:->command' '*::argument:->argument'
    case $state in
    command) _describe command commands ;;
    argument)
        case $words[1] in
{cases}
        esac
        ;;
    esac
}}

if [[ $funcstack[1] == _trtd ]]; then
    _trtd "$@"
else
    compdef _trtd trtd
fi
"""

_ZSH_ACTIONS = {
    "files": "_files",
    "directories": "_files -/",
    "tenants": "_trtd_tenants",
    "models": "_trtd_models",
    "nothing": " ",
}


def zsh() -> str:
    """The text of `etc/completions/_trtd`."""
    commands = [f"        {_single(f'{command.name}:{command.summary}')}" for command in COMMANDS]
    cases = []
    for command in COMMANDS:
        specs = [_zsh_spec(argument) for argument in command.arguments]
        lines = " \\\n                ".join([*specs, "'(- *)--help[show what it takes]'"])
        cases.append(f"        {command.name})\n            _arguments \\\n                {lines} ;;")
    return _ZSH.format(made_by=MADE_BY, commands="\n".join(commands), cases="\n".join(cases))


def _zsh_spec(argument: Argument) -> str:
    action = f"({choices(argument)})" if kind(argument) == "choices" else _ZSH_ACTIONS[kind(argument)]
    text = _zsh_text(_help(argument))
    if not is_flag(argument):
        optional = ":" if argument.options.get("nargs") == "?" else ""
        return _single(f":{optional}{text}:{action}")
    repeated = "*" if argument.options.get("action") == "append" else ""
    value = f":{_zsh_text(str(argument.options.get('metavar', 'value')))}:{action}" if takes_value(argument) else ""
    return _single(f"{repeated}{argument.names[0]}[{text}]{value}")


def _zsh_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def _single(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# fish

_FISH = """\
{made_by}

# Succeeds where the command is the first word and so many places are filled after it.
function __trtd_at --argument-names command position
    set --local words (commandline --tokenize --current-process --cut-at-cursor)
    test "$words[2]" = "$command"; and test (count (__trtd_words)) = $position
end

# The words after the command that are no flags and no values of flags.
function __trtd_words
    set --local words (commandline --tokenize --current-process --cut-at-cursor)
    set --local is_value no
    for word in $words[3..]
        if test $is_value = yes
            set is_value no
        else if contains -- "$words[2]:$word" {value_flags}
            set is_value yes
        else if not string match --quiet -- '-*' $word
            echo $word
        end
    end
end

function __trtd_tenant
    set --local words (__trtd_words)
    echo $words[1]
end

complete --command trtd --no-files
{lines}
"""

_FISH_ACTIONS = {
    "files": "--force-files",
    "directories": "--no-files --arguments '(__fish_complete_directories)'",
    "tenants": "--no-files --arguments '(trtd completion tenants 2>/dev/null)'",
    "models": "--no-files --arguments '(trtd completion models (__trtd_tenant) 2>/dev/null)'",
    "nothing": "--no-files",
}


def fish() -> str:
    """The text of `etc/completions/trtd.fish`."""
    value_flags = " ".join(f"{command.name}:{name}" for command in COMMANDS for name in _value_flags(command))
    return _FISH.format(made_by=MADE_BY, value_flags=value_flags, lines="\n".join(_fish_lines()))


def _fish_lines() -> Iterator[str]:
    for command in COMMANDS:
        summary = _fish_text(command.summary)
        yield (
            "complete --command trtd --condition __fish_use_subcommand"
            f" --arguments {command.name} --description {summary}"
        )
    for command in COMMANDS:
        for argument in flags(command):
            (name,) = argument.names
            value = f" --require-parameter {_fish_action(argument)}" if takes_value(argument) else ""
            yield (
                f"complete --command trtd --condition '__fish_seen_subcommand_from {command.name}'"
                f" --long-option {name.removeprefix('--')}{value} --description {_fish_text(_help(argument))}"
            )
        for place, argument in enumerate(positions(command)):
            if kind(argument) != "nothing":
                yield (
                    f"complete --command trtd --condition '__trtd_at {command.name} {place}'"
                    f" {_fish_action(argument)} --description {_fish_text(_help(argument))}"
                )


def _fish_action(argument: Argument) -> str:
    if kind(argument) == "choices":
        return f"--no-files --arguments {_fish_text(choices(argument))}"
    return _FISH_ACTIONS[kind(argument)]


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
