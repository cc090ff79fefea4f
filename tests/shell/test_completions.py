"""Completions, each tried in its own shell, and where the names in them come from."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.stand_in_daemon import StandInDaemon
from trtd.cli.main import main

FOLDER = Path(__file__).parents[2] / "etc" / "completions"
PATIENCE_S = 30.0

BASH = """
source "$1"
shift
COMP_WORDS=(trtd "$@")
COMP_CWORD=$#
_trtd
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = """
source $argv[1]
complete --do-complete $argv[2] | string replace --regex '\\t.*' ''
"""

needs = {shell: pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed") for shell in
         ("bash", "zsh", "fish")}  # fmt: skip

CASES: list[tuple[str, set[str], set[str]]] = [
    ("st", {"status"}, {"serve", "drain"}),
    ("drain ", {"alpha", "beta"}, {"model-of-alpha"}),
    ("drain --timeout 3 a", {"alpha"}, {"beta"}),
    ("infer alpha ", {"model-of-alpha"}, {"beta"}),
    ("infer --timeout 9 alpha ", {"model-of-alpha"}, {"beta"}),
    ("serve --log-level ", {"debug", "info", "warning", "error"}, {"--config"}),
    ("serve --log-l", {"--log-level"}, {"--log-format"}),
    ("config ", {"check", "show"}, {"alpha"}),
]
"""What is typed after `trtd `, what has to be offered, what must not be."""


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """An environment in which `trtd completion` knows two tenants."""
    program = tmp_path / "bin" / "trtd"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\ncase "$2" in tenants) echo alpha; echo beta ;; models) echo "model-of-$3" ;; esac\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"}


def bash(line: str, environ: dict[str, str]) -> set[str]:
    words = line.split(" ")
    argv = ["bash", "--norc", "-c", BASH, "bash", str(FOLDER / "trtd.bash"), *words]
    return set(subprocess.run(argv, env=environ, capture_output=True, text=True, check=True, timeout=60).stdout.split())


def fish(line: str, environ: dict[str, str]) -> set[str]:
    argv = ["fish", "--no-config", "-c", FISH, str(FOLDER / "trtd.fish"), f"trtd {line}"]
    return set(subprocess.run(argv, env=environ, capture_output=True, text=True, check=True, timeout=60).stdout.split())


def zsh(line: str, environ: dict[str, str]) -> set[str]:
    """What a zsh on a terminal lists for a Tab."""
    start = (
        f"PS1=; autoload -Uz compinit; compinit -u -D; source {FOLDER / '_trtd'}; bindkey '^I' list-choices;"
        " zle-line-init() { print -n EDIT''ING }; zle -N zle-line-init"
    )
    with Terminal(["zsh", "-f", "-i"], environ) as terminal:
        terminal.type(f"{start}\n")
        # What is typed before the editor has the terminal would never reach it.
        terminal.until(lambda text: "EDITING" in text)
        terminal.type(f"trtd {line}\t")
        terminal.type("\x15echo DO''NE\n")
        return set(terminal.until(lambda text: "DONE" in text).split("EDITING")[1].split())


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, argv: list[str], environ: dict[str, str]) -> None:
        self._fd, inside = pty.openpty()
        self._process = subprocess.Popen(
            argv, env=environ, stdin=inside, stdout=inside, stderr=inside, start_new_session=True
        )
        os.close(inside)
        self._text = ""

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def until(self, condition: Callable[[str], bool]) -> str:
        """Everything on the screen so far, once the condition holds for it."""
        until = time.monotonic() + PATIENCE_S
        while not condition(self._text):
            ready, _, _ = select.select([self._fd], [], [], max(until - time.monotonic(), 0))
            assert ready, f"the terminal shows only {self._text!r}"
            self._text += os.read(self._fd, 65536).decode(errors="replace")
        return self._text

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)
        os.close(self._fd)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].strip())
@pytest.mark.parametrize(
    "shell", [pytest.param(shell, marks=needs[shell.__name__]) for shell in (bash, zsh, fish)], ids=lambda f: f.__name__
)
def test_a_shell_completes(shell, case, stand_in):
    """Commands, flags, choices, tenants of the daemon and models of the tenant that stands before."""
    line, offered, withheld = case
    words = shell(line, stand_in)
    assert offered <= words
    assert not withheld & words


def test_names_come_from_the_daemon(tmp_path, monkeypatch, capsys):
    """A running daemon tells its tenants and their models."""
    monkeypatch.setenv("TRTD_DAEMON__RUNTIME_DIR", str(tmp_path))
    models = [{"name": "m"}, {"name": "m"}, {"name": "n"}]
    with contextlib.closing(StandInDaemon(tmp_path)) as daemon:
        daemon.lines = [{"ok": {"tenants": [{"name": "a", "models": models}, {"name": "b", "models": []}]}}]
        assert main(["completion", "tenants"]) == 0
        assert capsys.readouterr().out == "a\nb\n"
        assert main(["completion", "models", "a"]) == 0
        assert capsys.readouterr().out == "m\nn\n"


def test_names_come_from_the_configuration_where_no_daemon_runs(tmp_path, monkeypatch, capsys):
    """Without a daemon the configured names are offered; without a usable configuration none, and no error."""
    monkeypatch.setenv("TRTD_DAEMON__RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TRTD_TENANTS__A__MODELS__M__PATH", "m.onnx")
    assert main(["completion", "tenants"]) == 0
    assert capsys.readouterr() == ("a\n", "")
    assert main(["completion", "models", "a"]) == 0
    assert capsys.readouterr() == ("m\n", "")
    monkeypatch.setenv("TRTD_TENANTS__A__MODELS__M__PATHS", "m.onnx")
    assert main(["completion", "tenants"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("shell", "file"), [("bash", "trtd.bash"), ("zsh", "_trtd"), ("fish", "trtd.fish")])
def test_the_command_prints_the_script(shell, file, capsys):
    """`trtd completion bash` prints what is installed, for who installed no package."""
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == (FOLDER / file).read_text(encoding="utf-8")
