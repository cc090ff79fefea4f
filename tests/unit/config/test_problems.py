"""Every way in which a single key can be wrong, and the one line that tells it."""

from __future__ import annotations

import pytest

from tests.support.config import MODEL

NAME = "1 to 63 of a-z, 0-9, - and _, beginning with a letter or digit"
MODEL_NAME = "1 to 63 letters, digits, ., - and _, beginning with a letter or digit"
UNITS = "a string has to be a number with one of the units us, ms, s, m, h, d"
BEAT = "must be a number from 0.01 to 10"
BUDGET = "must be a whole number from 0 to 1000000"
JITTER = "must be a number from 0 to below 1"
MODE = 'must be permission bits as an octal string, such as "0660"'
ACCOUNTS = 'must be an array of strings that are not empty, such as ["alice", "1000"]'
LISTEN = 'must be "" for none, "127.0.0.1:PORT", "[::1]:PORT" or "unix:/PATH" (loopback and unix sockets only)'
LEVEL = 'must be one of "debug", "info", "warning", "error"'
TABLES = "version, log, daemon, operators, router, health, tenants"
HUGE_BUDGET = "router.restart.budget = 0x" + "f" * 5000
HUGE_JITTER = "router.restart.jitter = 0x" + "f" * 5000
VERSION = "this trtd reads version 1 of the configuration"


@pytest.mark.parametrize(
    ("toml", "key", "text"),
    [
        # Wrong types.
        ("log = 1", "1: log", "must be a table, not 1"),
        ("tenants = []", "1: tenants", "must be a table, not an array"),
        ("tenants.a = true", "1: tenants.a", "must be a table, not true"),
        ("daemon.runtime_dir = 1.5", "1: daemon.runtime_dir", "must be a path or an empty string, not 1.5"),
        ("daemon.beat_every_s = true", "1: daemon.beat_every_s", f"{BEAT}, not true"),
        ('daemon.beat_every_s = "1"', "1: daemon.beat_every_s", f'{BEAT}, not "1"; {UNITS}'),
        ("router.socket_mode = 438", "1: router.socket_mode", f"{MODE}, not 438"),
        ("router.restart.budget = 1.0", "1: router.restart.budget", f"{BUDGET}, not 1.0"),
        ("router.restart.budget = false", "1: router.restart.budget", f"{BUDGET}, not false"),
        ("router.restart.budget = {}", "1: router.restart.budget", f"{BUDGET}, not a table"),
        (
            "router.restart.budget = 2020-01-01",
            "1: router.restart.budget",
            f"{BUDGET}, not the date or time 2020-01-01",
        ),
        ('operators.viewer_users = "alice"', "1: operators.viewer_users", f'{ACCOUNTS}, not "alice"'),
        ("operators.viewer_users = [\n  'alice',\n  5]", "1: operators.viewer_users", f"{ACCOUNTS}, not 5"),
        ("operators.viewer_users = ['']", "1: operators.viewer_users", f'{ACCOUNTS}, not ""'),
        # Out of range.
        ("daemon.beat_every_s = 0", "1: daemon.beat_every_s", f"{BEAT}, not 0"),
        ("daemon.beat_every_s = nan", "1: daemon.beat_every_s", f"{BEAT}, not nan"),
        ("daemon.drain_timeout_s = 0", "1: daemon.drain_timeout_s", "must be a number above 0 to 86400, not 0"),
        ("daemon.drain_timeout_s = inf", "1: daemon.drain_timeout_s", "must be a number above 0 to 86400, not inf"),
        ("router.restart.jitter = 1", "1: router.restart.jitter", f"{JITTER}, not 1"),
        ("router.restart.budget = -1", "1: router.restart.budget", f"{BUDGET}, not -1"),
        (HUGE_BUDGET, "1: router.restart.budget", f"{BUDGET}, not a number of 20000 bits"),
        (HUGE_JITTER, "1: router.restart.jitter", f"{JITTER}, not a number of 20000 bits"),
        # Patterns and choices.
        ("router.socket_mode = '999'", "1: router.socket_mode", f'{MODE}, not "999"'),
        ("health.listen = '0.0.0.0:9'", "1: health.listen", f'{LISTEN}, not "0.0.0.0:9"'),
        ("log.level = 'warn'", "1: log.level", f'{LEVEL}, not "warn", did you mean "warning"?'),
        ("log.format = 'xml'", "1: log.format", 'must be one of "auto", "console", "json", not "xml"'),
        ("log.format = 5", "1: log.format", 'must be one of "auto", "console", "json", not 5'),
        (
            'daemon.runtime_dir = "/a\\u0000b"',
            "1: daemon.runtime_dir",
            'must be a path or an empty string, not "/a\\u0000b"',
        ),
        # Missing.
        ("[tenants.a]", "1: tenants.a.models", "missing, needs at least one table [tenants.a.models.NAME]"),
        ("[tenants.a.models]", "1: tenants.a.models", "missing, needs at least one table [tenants.a.models.NAME]"),
        ("[tenants.a.models.m]", "1: tenants.a.models.m.path", "missing, must be a path"),
        # Names.
        ("[tenants.'A b'.models.m]\npath='x'", '1: tenants."A b"', f"cannot be a name; it must be {NAME}"),
        ("[tenants.a.models.'']\npath='x'", '1: tenants.a.models.""', f"cannot be a name; it must be {MODEL_NAME}"),
        # Unknown keys.
        ("[daemon]\nrun_dir = ''", "2: daemon.run_dir", "unknown key, did you mean runtime_dir?"),
        ("lgo.level = 'info'", "1: lgo", "unknown key, did you mean log?"),
        ("foo = 1", "1: foo", f"unknown key; known here: {TABLES}"),
        ('"a\\n\\u001bb" = 1', '1: "a\\n\\u001bb"', f"unknown key; known here: {TABLES}"),
        ("level = 'info'", "1: level", "unknown key, did you mean log.level?"),
        (
            MODEL + "[tenants.a]\nmax_requests = 1",
            "4: tenants.a.max_requests",
            "unknown key, did you mean tenants.a.queue.max_requests?",
        ),
        (
            MODEL + "[tenants.a.queue]\nmax_request = 1",
            "4: tenants.a.queue.max_request",
            "unknown key, did you mean max_requests?",
        ),
        (
            MODEL + "[tenants.a.queue]\nmax_batch = 1",
            "4: tenants.a.queue.max_batch",
            "unknown key, did you mean tenants.a.models.NAME.max_batch?",
        ),
        (MODEL + "listen = 1", "3: tenants.a.models.m.listen", "unknown key, did you mean tenants.a.tcp.listen?"),
        # Versions.
        ("version = 2", "1: version", f"{VERSION}, not 2"),
        ("version = true", "1: version", f"{VERSION}, not true"),
        ("version = 1.0", "1: version", f"{VERSION}, not 1.0"),
        ("version = '1'", "1: version", f'{VERSION}, not "1"'),
    ],
)
def test_a_wrong_key_is_told_in_one_line(config_dir, toml, key, text):
    """File, line, key, what is wanted and what was found; or the nearest right key."""
    assert config_dir.problems(toml) == [f"trtd.toml:{key}: {text}"]


def test_a_long_value_is_cut(config_dir):
    """A problem shows the beginning of a long value only."""
    (problem,) = config_dir.problems(f"log.level = '{'x' * 10_000}'")
    assert problem.endswith(f'not "{"x" * 60}..."')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\nb = \n", ":2: is not valid TOML: Invalid value"),
        ("[a\n", ":1: is not valid TOML: Expected ']' at the end of a table declaration"),
        ("a = 1\na = 2\n", ":2: is not valid TOML: Cannot overwrite a value"),
        ('a = 1\nb = """', ":2: is not valid TOML: Unterminated string"),
        ("a = " + "9" * 5000, ": is not valid TOML: a number or a date is out of range"),
        ("a = " + "[" * 100_000, ": is not valid TOML: nested too deep"),
        (b"a = 1\nb = '\xff'", ":2: is not UTF-8 text: byte 0xff is out of place"),
    ],
)
def test_a_file_that_is_no_toml_is_told_with_its_line(config_dir, text, expected):
    """What TOML's parser or the decoder refuses names the file and, where it is known, the line."""
    assert config_dir.problems(text) == [f"trtd.toml{expected}"]


def test_all_files_that_cannot_be_read_are_told(config_dir):
    """A directory, a dangling link, a loop and a missing `--config` file each say why, together."""
    mine = config_dir.root / "etc/mine.toml"
    (config_dir.etc / "conf.d" / "dir.toml").mkdir(parents=True)
    (config_dir.etc / "conf.d" / "gone.toml").symlink_to("nowhere")
    (config_dir.etc / "conf.d" / "loop.toml").symlink_to("loop.toml")
    config_dir.write("etc/tenants.d", "a file")
    assert config_dir.problems(config_file=mine) == [
        "mine.toml: cannot be read: no such file or directory",
        "conf.d/dir.toml: cannot be read: is a directory",
        "conf.d/gone.toml: cannot be read: no such file or directory",
        "conf.d/loop.toml: cannot be read: too many levels of symbolic links",
        "tenants.d: cannot be listed: not a directory",
    ]


def test_every_layer_is_asked_for_its_version(config_dir):
    """A file of an unknown version is refused even when a later one names a known version."""
    config_dir.write("vendor.toml", "\nversion = 7\n")
    assert config_dir.problems("version = 1") == [
        "vendor.toml:2: version: this trtd reads version 1 of the configuration, not 7"
    ]


def test_a_tenant_file_with_the_table_of_a_whole_file_is_explained(config_dir):
    """A file in tenants.d that names its tenant again is told that it need not."""
    explanation = "a file in tenants.d/ holds one tenant's keys without [tenants.b]"
    config_dir.write("etc/tenants.d/b.toml", "[tenants.b.models.m]\npath = 'x'\n")
    assert config_dir.problems() == [
        "tenants.d/b.toml: tenants.b.models: missing, needs at least one table [tenants.b.models.NAME]",
        f"tenants.d/b.toml:1: tenants.b.tenants: unknown key; {explanation}",
    ]


def test_a_tenant_file_whose_name_is_no_name_is_refused(config_dir):
    """The tenant's name is the file's, so the file's name has to be one."""
    config_dir.write("etc/tenants.d/My Tenant.toml", "[models.m]\npath = 'x'\n")
    assert config_dir.problems() == [
        f'tenants.d/My Tenant.toml: tenants."My Tenant": cannot be a name; it must be {NAME}'
    ]
