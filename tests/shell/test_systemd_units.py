"""The systemd units agree with the daemon, and systemd's own tools find nothing wrong with them."""

from __future__ import annotations

import shutil

import pytest

from tests.support import units
from trtd.cli.main import build_parser
from trtd.config.model import Config
from trtd.errors import ExitCode
from trtd.supervisor.shutdown import CUT_GRACE_S
from trtd.wire import addresses

MAX_EXPOSURE = 1.5
DROP_INS = ("mps.conf", "curve.conf", "network.conf")
has_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="this host has no systemd-analyze"
)


def seconds(text: str) -> float:
    return float(text.removesuffix("ms")) / 1e3 if text.endswith("ms") else float(text)


@pytest.mark.parametrize(
    ("unit", "key"),
    [("trtd.service", "ExecStart"), ("trtd.service", "ExecReload"), ("trtd-devices.service", "ExecStart")],
)
def test_every_command_is_one_of_ours(unit, key):
    """Each command line of a unit is understood by the program that it starts."""
    (line,) = units.settings(unit)[key]
    program, *words = line.split()
    assert program == "/usr/bin/trtd"
    build_parser().parse_args(words)


def test_systemd_is_more_patient_than_the_daemon():
    """A drain with the default deadline, its cut and the end of the workers fit into what systemd allows."""
    config = Config()
    service = units.settings("trtd.service")
    assert seconds(service["TimeoutStopSec"][0]) > config.daemon.drain_timeout_s + CUT_GRACE_S + 10
    assert seconds(service["WatchdogSec"][0]) >= 2 * config.router.health.beat_s


def test_what_cannot_be_mended_is_not_restarted():
    """A wrong command line or configuration stops the unit; everything else is restarted."""
    service = units.settings("trtd.service")
    assert service["Restart"] == ["always"]
    assert service["RestartPreventExitStatus"] == [f"{int(ExitCode.USAGE)} {int(ExitCode.BAD_CONFIG)}"]


def test_the_socket_unit_listens_where_clients_look():
    """The template opens the address that clients of a tenant use with the runtime directory of the service."""
    (environment,) = units.settings("trtd.service")["Environment"]
    name, _, runtime_dir = environment.partition("=")
    assert name == addresses.RUNTIME_DIR_VARIABLE
    assert units.settings("trtd.service")["RuntimeDirectory"] == [runtime_dir.removeprefix("/run/")]
    (path,) = units.settings("trtd@.socket")["ListenStream"]
    assert f"ipc://{path}" == addresses.tenant_address(runtime_dir, "%i")
    assert f"d {runtime_dir} 0755 trtd trtd" in (units.FOLDER / "tmpfiles.d/trtd.conf").read_text(encoding="utf-8")


@pytest.mark.parametrize("unit", units.services())
def test_the_services_run_as_the_user_that_is_made(unit):
    """sysusers.d makes the user that the units name."""
    (user,) = units.settings(unit)["User"]
    assert f"u {user} " in (units.FOLDER / "sysusers.d/trtd.conf").read_text(encoding="utf-8")


@has_systemd_analyze
@pytest.mark.parametrize("drop_ins", [(), *((name,) for name in DROP_INS), DROP_INS])
def test_systemd_finds_nothing_wrong(tmp_path, drop_ins):
    """`systemd-analyze verify` has no word to say about any unit, with and without the drop-ins."""
    root = units.install(tmp_path / "root", *drop_ins)
    names = [*units.services(), "trtd@a.socket"]
    code, lines = units.analyze("verify", "--man=no", f"--root={root}", *names)
    assert (code, lines) == (0, [])


@has_systemd_analyze
@pytest.mark.parametrize("unit", units.services())
def test_the_exposure_is_low(unit):
    """`systemd-analyze security` gives each service 1.5 or less."""
    code, lines = units.analyze(
        "security", "--offline=true", f"--threshold={round(MAX_EXPOSURE * 10)}", str(units.FOLDER / unit)
    )
    assert code == 0, "\n".join(lines)


@has_systemd_analyze
def test_a_laxer_unit_would_be_found(tmp_path):
    """The threshold is one that a service without its sandbox does not pass."""
    text = (units.FOLDER / "trtd.service").read_text(encoding="utf-8")
    (tmp_path / "trtd.service").write_text(text.partition("NoNewPrivileges")[0], encoding="utf-8")
    code, lines = units.analyze(
        "security", "--offline=true", f"--threshold={round(MAX_EXPOSURE * 10)}", str(tmp_path / "trtd.service")
    )
    assert code != 0, "\n".join(lines)
