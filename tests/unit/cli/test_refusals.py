"""What the host or whoever starts a command can do to it: no defect of ours, one line, the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trtd.cli.main import main
from trtd.errors import ExitCode

TRTD = (sys.executable, "-P", "-m", "trtd")


def shell(line: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell in which "$@" is a `trtd` command."""
    script = ["/bin/sh", "-c", line, "sh", *TRTD, *argv]
    return subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110 - a name, no path of ours
def test_a_full_disk_is_no_defect():
    """Output that cannot be written is told in one line, with the exit code of input and output, and only once."""
    done = shell('"$@" >/dev/full', "version")
    assert (done.returncode, done.stderr) == (ExitCode.IO_FAILED, "trtd: the output: No space left on device.\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_defect(closed):
    """A command whose standard streams were closed does its work, and what it opens does not take their places."""
    done = shell(f'"$@" {closed}', "version")
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")


def test_nothing_is_told_where_stderr_is_closed():
    """An error line does not go to stdout instead."""
    done = shell('"$@" 2>&-', "fly")
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")


def test_a_deleted_working_directory_is_no_defect(tmp_path):
    """Where relative paths start nowhere, that is what is told."""
    gone = tmp_path / "gone"
    gone.mkdir()
    done = shell(f'cd "{gone}" && rmdir "{gone}" && "$@"', "config", "check")
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith("trtd: usage: the working directory does not exist any more")


def test_the_bare_command_shows_its_help(capsys):
    """`trtd` alone is a question, and is answered with the commands."""
    assert main([]) == ExitCode.OK
    told = capsys.readouterr()
    assert "serve" in told.out
    assert told.err == ""


@pytest.mark.parametrize("tenant", ["nosuch", "x" * 5000])
def test_a_tenant_that_does_not_exist(tmp_path, capsys, tenant):
    """Whether there is no daemon at all, or a daemon without that tenant, is told apart, with what is there."""
    argv = ["infer", tenant, "m", "--runtime-dir", str(tmp_path)]
    assert main(argv) == ExitCode.UNAVAILABLE
    assert "Start it with `trtd serve`" in capsys.readouterr().err
    for name in ("operator", "ann", "bob"):
        (tmp_path / f"{name}.sock").touch()
    assert main(argv) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert "there are: ann, bob. `trtd status` shows" in told
    assert len(told) < 300


def test_the_tenants_that_there_are_come_from_the_daemon(tmp_path, capsys, monkeypatch):
    """Other sockets in the daemon's directory, that of its health as a rule, are no tenants."""
    for name in ("operator", "ann", "http"):
        (tmp_path / f"{name}.sock").touch()
    monkeypatch.setattr("trtd.cli.operator.call", lambda *_: {"tenants": [{"name": "ann"}]})
    assert main(["infer", "nosuch", "m", "--runtime-dir", str(tmp_path)]) == ExitCode.USAGE
    assert "there are: ann. " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            FileNotFoundError(2, "No such file or directory", "x.npy"),
            ExitCode.USAGE,
            "x.npy: No such file or directory",
        ),
        (PermissionError(13, "Permission denied", "/etc/x"), ExitCode.NO_PERMISSION, "/etc/x: Permission denied"),
        (OSError(36, "File name too long", "x" * 5000), ExitCode.USAGE, "xxx...: File name too long"),
        (OSError(5, "Input/output error", "a\nb"), ExitCode.IO_FAILED, "a b: Input/output error"),
    ],
)
def test_refusals_of_the_host_are_one_short_line(monkeypatch, capsys, error, code, text):
    """What an operating system call is refused for is told with the name of the file, cut where it is long."""

    def refuse(_: str) -> None:
        raise error

    monkeypatch.setattr("trtd.cli.commands.load", refuse)
    assert main(["version"]) == code
    told = capsys.readouterr().err
    assert told.endswith(f"{text}.\n")
    assert told.count("\n") == 1
    assert len(told) < 300
