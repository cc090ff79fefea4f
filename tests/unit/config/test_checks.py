"""Rules over several keys, and accounts."""

from __future__ import annotations

import pytest

from tests.support.config import ACCOUNTS, MODEL, make_config
from trtd.config.accounts import SYSTEM, account_problems
from trtd.config.checks import cross_problems

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
CURVE = '[router]\ncurve_secret_key_file = "k"\n'


def tcp(tenant: str, listen: str) -> str:
    """A tenant with a tcp endpoint, in three lines."""
    return f'[tenants.{tenant}]\nmodels.m.path = "m"\ntcp = {{ listen = "{listen}", clients = {{ c = "{KEY}" }} }}\n'


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        (
            MODEL + "[tenants.a.queue]\ndefault_timeout_s = 700",
            "4: tenants.a.queue.default_timeout_s: must be at most queue.max_timeout_s (600.0), not 700.0",
        ),
        (
            MODEL + "[tenants.a.queue]\nmax_request_bytes = 8192\nmax_bytes = 4096",
            "4: tenants.a.queue.max_request_bytes: must be at most queue.max_bytes (4096), not 8192",
        ),
        (
            MODEL + "[tenants.a.restart]\nbase_s = 60",
            "4: tenants.a.restart.base_s: must be at most restart.cap_s (30.0), not 60.0",
        ),
        ("router.restart.base_s = 2", "1: router.restart.base_s: must be at most restart.cap_s (0.25), not 2.0"),
        (
            MODEL + "[tenants.a.health]\nbeat_s = 0.1",
            "4: tenants.a.health.beat_s: must be at least twice daemon.beat_every_s (0.2), not 0.1",
        ),
        (
            MODEL + '[tenants.a.models.n]\nname = "m"\npath = "n"',
            "3: tenants.a.models.n: name m and version 1 are those of models.m already",
        ),
        (
            MODEL + "[tenants.a.onnxruntime]\nproviders = []",
            "4: tenants.a.onnxruntime.providers: must name at least one, such as CPUExecutionProvider",
        ),
        (
            MODEL + '[tenants.a.onnxruntime]\nproviders = ["cuda"]',
            (
                "4: tenants.a.onnxruntime.providers: must be an array of execution providers, such as"
                ' ["CUDAExecutionProvider", "CPUExecutionProvider"], not "cuda"'
            ),
        ),
        (
            MODEL + '[tenants.a.onnxruntime.session_entries]\n"home" = "1"',
            (
                "4: tenants.a.onnxruntime.session_entries.home: cannot be a name; it must be a name in quotes that"
                " begins with session., optimization., ep., mlas. or memory."
            ),
        ),
        (
            MODEL.replace(".a.", ".operator."),
            "1: tenants.operator: this name is reserved for the daemon's own socket",
        ),
        (tcp("a", "*:5000"), "3: tenants.a.tcp.listen: a tcp endpoint needs router.curve_secret_key_file"),
        (
            CURVE + tcp("a", "*:5000") + tcp("b", "[::1]:5000"),
            "8: tenants.b.tcp.listen: [::1]:5000 collides with *:5000 of tenant a",
        ),
        (
            CURVE + tcp("a", "10.0.0.1:5000") + tcp("b", "10.0.0.1:05000"),
            "8: tenants.b.tcp.listen: 10.0.0.1:05000 collides with 10.0.0.1:5000 of tenant a",
        ),
        (CURVE + tcp("a", "*:0"), "5: tenants.a.tcp.listen: the port must be from 1 to 65535, not 0"),
        (CURVE + tcp("a", "10.0.0.256:9"), "5: tenants.a.tcp.listen: 10.0.0.256 is no address"),
        (CURVE + tcp("a", "[:::]:9"), "5: tenants.a.tcp.listen: [:::] is no address"),
        ('health.listen = "[::1]:65536"', "1: health.listen: the port must be from 1 to 65535, not 65536"),
        (
            f'health.listen = "unix:/{"x" * 107}"',
            "1: health.listen: its path has 108 bytes and may have 107",
        ),
        (
            MODEL + '[tenants.a]\nallow_users = ["alice", "1234", "*", "eve"]',
            "4: tenants.a.allow_users: there is no user eve on this host",
        ),
        (MODEL + '[tenants.a]\nallow_groups = ["*"]', "4: tenants.a.allow_groups: there is no group * on this host"),
        (
            'operators.viewer_users = ["4294967295"]',
            "1: operators.viewer_users: there is no user 4294967295 on this host",
        ),
    ],
)
def test_what_does_not_fit_together_is_told(config_dir, toml, problem):
    """Each broken rule is one line with the key that breaks it and the value that it meets."""
    assert config_dir.problems(toml) == [f"trtd.toml:{problem}"]


@pytest.mark.parametrize(
    "toml",
    [
        MODEL
        + "[tenants.a.queue]\ndefault_timeout_s = 600\nmax_bytes = 4096\nmax_request_bytes = 4096\nmax_requests = 1",
        MODEL + '[tenants.a.models.n]\nname = "m"\nversion = "2"\npath = "n"',
        MODEL + '[tenants.b]\nmodels.m.path = "m"',
        MODEL + "[tenants.a.health]\nbeat_s = 0.2",
        CURVE + tcp("a", "10.0.0.1:5000") + tcp("b", "10.0.0.2:5000") + tcp("c", "*:5001"),
        f'health.listen = "unix:/{"x" * 106}"',
        'operators.viewer_users = ["4294967294", "0"]',
    ],
)
def test_what_just_fits_is_taken(config_dir, toml):
    """Values at the very limit of a rule, and equal ones in different tenants, are no problem."""
    config_dir.load(toml)


def test_a_runtime_directory_too_deep_for_sockets_is_refused(config_dir):
    """The paths of the daemon's sockets have 107 bytes at most, and a tenant's name counts."""
    deepest = "/" + "d" * (107 - len("/router/workers.sock") - 1)
    config_dir.load(MODEL, environ={"TRTD_DAEMON__RUNTIME_DIR": deepest})
    (problem,) = config_dir.problems(environ={"TRTD_DAEMON__RUNTIME_DIR": f"{deepest}é"})
    assert problem.startswith("environment TRTD_DAEMON__RUNTIME_DIR: daemon.runtime_dir: ")
    assert problem.endswith("is 2 bytes too long: the paths of sockets in it may have 107 bytes")
    toml = f'[tenants.{"t" * 20}.models.m]\npath = "m"'
    (problem,) = config_dir.problems(toml, environ={"TRTD_DAEMON__RUNTIME_DIR": deepest})
    assert problem.startswith(f"trtd.toml:1: tenants.{'t' * 20}: the path of its socket, {deepest}/ttt")
    assert problem.endswith("has 115 bytes and may have 107: shorten the name or daemon.runtime_dir")


def test_the_accounts_of_this_host_are_known():
    """Without other accounts root exists and a made-up name does not."""
    config = make_config(
        a={"allow_users": ("root", "no-such-user-here"), "allow_groups": ("root", "no-such-group-here")}
    )
    assert [problem.text for problem in account_problems(config, SYSTEM)] == [
        "there is no user no-such-user-here on this host",
        "there is no group no-such-group-here on this host",
    ]


def test_a_defaults_only_configuration_breaks_no_rule():
    """The defaults fit together."""
    assert cross_problems(make_config()) == []
    assert account_problems(make_config(), ACCOUNTS) == []
