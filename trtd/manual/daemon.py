"""trtd(8): the daemon as its host sees it. Written by hand, with the values that the code has."""

from __future__ import annotations

from collections.abc import Iterator

from trtd.config.model import Daemon
from trtd.errors import ExitCode
from trtd.manual.roff import bold, escape, example, heading, italic, page, paragraph, tagged

STOP = (
    "Drain all tenants: refuse new requests, answer the accepted ones, end. A second one ends at once. What is left"
    " after daemon.drain_timeout_s is answered with an error."
)


def daemon_page() -> str:
    """The text of `etc/man/trtd.8`."""
    return page("trtd", 8, "multi-tenant inference daemon", _body())


def _body() -> Iterator[str]:
    yield heading("synopsis")
    yield f"{bold('trtd serve')} [{bold('--config')} {italic('FILE')}]"
    yield heading("description")
    yield paragraph(
        "`trtd serve` runs in the foreground, for systemd or another service manager to look after. It is one"
        " supervisor with children: a router, which takes requests and gives answers, and one or more workers for each"
        " tenant, which hold the models. A child that dies is started again; all children end with the supervisor, even"
        " when it is killed."
    )
    yield paragraph(
        "It needs no privileges. With a runtime directory of its own it may run as any user; the package makes the user"
        " `trtd` for it."
    )
    yield heading("signals")
    for name, meaning in (
        ("SIGTERM, SIGINT", f"{STOP} By default that is {Daemon().drain_timeout_s:g} s."),
        ("SIGHUP", "Read the configuration again, as `trtd reload` does. A bad one changes nothing and is logged."),
    ):
        yield tagged(bold(name), meaning)
    yield heading("under systemd")
    yield paragraph(
        "The package brings trtd.service. `systemctl restart trtd` drains first, and clients of the Python library send"
        " again what was refused meanwhile. `systemctl reload trtd` is SIGHUP. The log is in the journal."
    )
    yield heading("under supervisord")
    yield paragraph(
        "For hosts without systemd there is a configuration of supervisord 4.3. Its plugin makes restarts quick and"
        " adds `trtd.status`, `trtd.drain` and `trtd.resume` to XML-RPC; its event listener logs each change of a"
        "  process's state. Never send SIGHUP to supervisord for a reload of trtd: it restarts all that it runs."
    )
    yield example("/usr/lib/trtd/bin/supervisord -c /etc/trtd/supervisord.conf")
    yield heading("upgrades")
    yield paragraph(
        "Restart the daemon after the package was replaced; with systemd the package does that itself, and the restart"
        " drains. Clients of the version before go on working, they speak the same wire protocol. A client that speaks"
        " a version unknown to the daemon is refused with unsupported_version, and told which are known."
    )
    yield heading("exit status")
    for code, meaning in (
        (ExitCode.OK, "every accepted request was answered"),
        (ExitCode.USAGE, "the command line is wrong"),
        (ExitCode.UNAVAILABLE, "another daemon serves this runtime directory"),
        (ExitCode.INTERNAL, "a defect"),
        (ExitCode.TEMPORARY, "a drain was cut: some requests were answered with an error"),
        (ExitCode.NO_PERMISSION, "the runtime directory or a socket cannot be used"),
        (ExitCode.BAD_CONFIG, "the configuration cannot be used"),
    ):
        yield tagged(bold(str(int(code))), meaning)
    yield heading("files")
    for path, meaning in (
        ("/etc/trtd/trtd.toml", "the configuration, see trtd.toml(5)"),
        ("/run/trtd/operator.sock", "where operators' commands go"),
        ("/run/trtd/TENANT.sock", "where clients of a tenant connect"),
        ("/var/lib/trtd", "home of the user trtd; a place for models, which the package never touches"),
    ):
        yield tagged(italic(path), meaning)
    yield heading("diagnostics")
    yield paragraph(
        "`trtd status` shows every worker with the cause of its last end. `trtd doctor` examines a GPU host."
        " `trtd support-bundle` collects what somebody who is to help needs, without secrets."
    )
    yield heading("see also")
    yield f"{bold('trtd')}(1), {bold('trtd.toml')}(5), {bold('systemctl')}(1), {escape('supervisord')}(1)"
