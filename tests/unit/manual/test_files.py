"""Man pages and completions are those that the code makes, say everything, and are well formed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from trtd.cli.commands import COMMANDS
from trtd.config.schema import leaves, schema
from trtd.errors import ExitCode
from trtd.manual import roff
from trtd.manual.files import made_files

ROOT = Path(__file__).parents[3]
PAGES = sorted(name for name in made_files() if name.startswith("etc/man/"))


@pytest.mark.parametrize("name", sorted(made_files()))
def test_the_file_is_what_the_code_makes(name):
    """The file in `etc` equals what is made from commands and schema; `scripts/manual` writes it anew."""
    assert (ROOT / name).read_text(encoding="utf-8") == made_files()[name]


def test_the_page_of_commands_names_everything():
    """Every command with every argument, and every exit code, stand in trtd(1)."""
    text = made_files()["etc/man/trtd.1"]
    for command in COMMANDS:
        assert f".SS {roff.quoted(f'trtd {command.name}')}\n" in text
        for argument in command.arguments:
            assert all(roff.escape(name) in text for name in argument.names if name.startswith("-"))
    assert all(f"\\fB{int(code)}\\fR\n" in text for code in ExitCode)


def test_the_page_of_settings_names_every_key():
    """Every key of the configuration stands in trtd.toml(5) with its meaning."""
    text = made_files()["etc/man/trtd.toml.5"]
    for path, leaf in leaves(schema()):
        if path[-1] != "NAME":
            assert f".TP\n{roff.bold(path[-1])}\n{roff.escape(leaf.description[:1].upper())}" in text, path


@pytest.mark.parametrize(
    ("text", "escaped"),
    [(".SH", "\\&.SH"), ("'quoted'", "\\(aqquoted\\(aq"), ("--all", "\\-\\-all"), ("C:\\x", "C:\\ex")],
)
def test_no_text_is_taken_for_a_command_of_roff(text, escaped):
    """Dots and quotes at the start, hyphens and backslashes come out as they went in."""
    assert roff.escape(text) == escaped


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_to_say(name):
    """Typesetting a page gives no warning."""
    checked = subprocess.run(
        ["groff", "-ww", "-man", "-Tutf8", "-z", str(ROOT / name)], capture_output=True, text=True, timeout=60
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
@pytest.mark.parametrize("name", PAGES)
def test_mandoc_has_little_to_say(name):
    """The checker of another implementation warns of nothing but the date, which our pages do not carry."""
    checked = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", str(ROOT / name)], capture_output=True, text=True, timeout=60
    )
    assert [line for line in checked.stdout.splitlines() if "missing date" not in line] == []
