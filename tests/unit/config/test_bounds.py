"""A file that blocks, has no end or is far too large is refused in one line, and in a time that one can wait for."""

from __future__ import annotations

import os
import time

import pytest

from trtd.config import files
from trtd.config.checks import MAX_TENANTS
from trtd.config.origins import MAX_TOLD
from trtd.config.toml import MAX_DEPTH

PATIENCE_CPU_S = 20.0
"""Processor time; what is quadratic takes hours."""


@pytest.fixture(autouse=True)
def _in_time():
    """However much it is, the work grows with the text and not with its square."""
    began = time.process_time()
    yield
    assert time.process_time() - began < PATIENCE_CPU_S


@pytest.mark.parametrize("place", ["etc/trtd.toml", "etc/conf.d/x.toml", "etc/tenants.d/x.toml", "vendor.toml"])
def test_a_fifo_is_refused_and_not_waited_for(config_dir, place):
    """Nobody writes into it, and loading ends all the same."""
    path = config_dir.write(place, "")
    path.unlink()
    os.mkfifo(path)
    assert config_dir.problems() == [f"{place.removeprefix('etc/')}: cannot be read: is a named pipe"]


def test_a_device_without_end_is_not_read(config_dir):
    """/dev/zero has more bytes than there is memory."""
    (config_dir.etc / "trtd.toml").symlink_to("/dev/zero")
    assert config_dir.problems() == ["trtd.toml: cannot be read: is a device"]


def test_a_file_that_is_too_large_is_not_read(config_dir, monkeypatch):
    """One byte more than is read of a file of configuration is refused, so many are taken."""
    text = "version = 1\n"
    monkeypatch.setattr(files, "MAX_FILE_BYTES", len(text))
    config_dir.load(text)
    assert config_dir.problems(f"{text}\n") == [f"trtd.toml: cannot be read: has more than {len(text)} bytes"]


@pytest.mark.parametrize(
    "toml",
    [
        ".".join(["a"] * 50_000) + " = 1",
        f"[{'.'.join(['a'] * 50_000)}]",
        f"[[ {' . '.join(['a'] * 50_000)} ]]",
        "a = { b = 1, " + ".".join(["'a b'"] * 50_000) + " = 1 }",
        "tenants." + ".".join(['"a\\n"'] * (MAX_DEPTH + 1)) + " = 1",
        "a." * (MAX_DEPTH - 1) + "a = { " + "a." * (MAX_DEPTH - 1) + "a = 1 }",
    ],
)
def test_a_key_of_many_parts_is_refused(config_dir, toml):
    """Dotted, quoted, of a table, of an array or inline: such a key is told as what it is."""
    (problem,) = config_dir.problems(toml)
    assert problem.endswith(f"has a key of more than {MAX_DEPTH} parts")


def test_a_variable_of_many_parts_is_refused(config_dir):
    """The same in a variable's name, and in a table that is its value."""
    name = "TRTD_" + "__".join(["A"] * 5000)
    (problem,) = config_dir.problems(environ={name: "1"})
    assert problem.endswith(f"has a key of more than {MAX_DEPTH} parts")
    deep = "{ " + ".".join(["a"] * 5000) + " = 1 }"
    (problem,) = config_dir.problems(environ={"TRTD_DAEMON__RUNTIME_DIR": deep, "TRTD_LOG__LEVEL": deep})
    assert problem.startswith("environment TRTD_LOG__LEVEL: log.level: must be one of")


def test_dots_in_strings_are_no_key(config_dir):
    """A value may have as many as it likes."""
    dotted = ".".join(["a"] * 100)
    config_dir.load(f'[tenants.a.models.m]\npath = "{dotted}"\n')


def test_more_tenants_than_any_host_has_are_refused(config_dir):
    """Before each of them is looked at, with the number."""
    text = "".join(f'[tenants.t{number}.models.m]\npath = "m"\n' for number in range(20_000))
    assert config_dir.problems(text) == [
        f"trtd.toml:1: tenants: 20000 tenants are configured, and a daemon has {MAX_TENANTS} at most"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"k{number} = 1\n" for number in range(20_000)),
        "[tenants.a.models.m]\npath = 'm'\n" + "".join(f"max_batchh{number} = 1\n" for number in range(20_000)),
        "[tenants.a]\n" + "".join(f"[tenants.a.models.m{number}]\n" for number in range(20_000)),
    ],
)
def test_only_the_first_problems_are_told(config_dir, text):
    """Of a mistake that was made 20,000 times one reads the first hundred, and how many there are."""
    problems = config_dir.problems(text)
    assert len(problems) == MAX_TOLD + 1
    assert problems[-1] == f"and {20_000 - MAX_TOLD} more problems"


def test_a_long_key_is_cut(config_dir):
    """A problem stays a line that one can read."""
    (problem,) = config_dir.problems(f"{'k' * 100_000} = 1")
    assert len(problem) < 400
    assert "kkk...: unknown key" in problem


def test_many_tenants_load(config_dir):
    """As many as are allowed, each with the tcp address of its own."""
    text = "".join(
        f'[tenants.t{number}]\nmodels.m.path = "m"\ntcp.listen = "127.0.0.1:{number + 1}"\n' for number in range(500)
    )
    loaded = config_dir.load(f'[router]\ncurve_secret_key_file = "k"\n{text}')
    assert len(loaded.config.tenants) == 500
