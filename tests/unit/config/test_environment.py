"""Environment variables as a layer: how names become keys and texts become values."""

from __future__ import annotations

import pytest

from tests.support.config import MODEL
from trtd.config.environment import parse_value, variable

BEAT = "daemon.beat_every_s: must be a number from 0.01 to 10"
UNITS = "a string has to be a number with one of the units us, ms, s, m, h, d"


@pytest.mark.parametrize(
    ("name", "text", "path", "expected"),
    [
        ("TRTD_TENANTS__A__QUEUE__MAX_REQUESTS", "5", ("tenants", "a", "queue", "max_requests"), 5),
        ("TRTD_DAEMON__BEAT_EVERY_S", "0.5", ("daemon", "beat_every_s"), 0.5),
        ("TRTD_DAEMON__BEAT_EVERY_S", "250ms", ("daemon", "beat_every_s"), 0.25),
        ("TRTD_LOG__LEVEL", "debug", ("log", "level"), "debug"),
        ("TRTD_LOG__LEVEL", '"debug"', ("log", "level"), "debug"),
        ("TRTD_OPERATORS__VIEWER_USERS", '["alice", "1001"]', ("operators", "viewer_users"), ("alice", "1001")),
        ("TRTD_TENANTS__A__MODELS__M__VERSION", "2", ("tenants", "a", "models", "m", "version"), "2"),
        ("TRTD_ROUTER__SOCKET_MODE", "660", ("router", "socket_mode"), "660"),
        ("TRTD_HEALTH__LISTEN", "", ("health", "listen"), ""),
    ],
)
def test_a_variable_sets_a_key(config_dir, name, text, path, expected):
    """Two underscores nest, the value is TOML or else a string, and a key for strings always gets one."""
    loaded = config_dir.load(MODEL, environ={name: text})
    value = loaded.config.model_dump()
    for part in path:
        value = value[part]
    assert value == expected
    assert str(loaded.origins[path]) == f"environment {name}"
    assert variable(path) == name


def test_a_variable_may_hold_a_table(config_dir):
    """A whole table in one variable merges with the rest, and a variable for a key inside it wins."""
    environ = {
        "TRTD_TENANTS__B__MODELS__M__MAX_BATCH": "3",
        "TRTD_TENANTS__B": '{ weight = 2, models = { m = { path = "/b", max_batch = 9 } } }',
    }
    tenant = config_dir.load(environ=environ).config.tenants["b"]
    assert (tenant.weight, tenant.models["m"].path, tenant.models["m"].max_batch) == (2, "/b", 3)


@pytest.mark.parametrize("text", ["1\nother = 2", "1\n[table]", "{", "'''", "9" * 5000, "[" * 100_000, "\x00"])
def test_what_is_no_single_toml_value_is_a_string(text):
    """Text that would be several values, or none, stays the text that it is."""
    assert parse_value(("daemon", "beat_every_s"), text) == text


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("TRTD_LOG__LEVL", "info", "log.levl: unknown key, did you mean level?"),
        ("TRTD_DAEMON__BEAT_EVERY_S", "", f'{BEAT}, not ""; {UNITS}'),
        ("TRTD_DAEMON__BEAT_EVERY_S", "5x", f'{BEAT}, not "5x"; {UNITS}'),
        ("TRTD_DAEMON__BEAT_EVERY_S", "11s", f"{BEAT}, not 11.0"),
        ("TRTD_LOG_LEVEL", "info", "is no setting, did you mean TRTD_LOG__LEVEL?"),
        ("TRTD_DAEMON_RUNTIME_DIR", "/x", "is no setting, did you mean TRTD_DAEMON__RUNTIME_DIR?"),
        ("TRTD_LOG__", "info", "a part of the key is empty"),
        ("TRTD___LEVEL", "info", "a part of the key is empty"),
        ("TRTD_LOG__LEVEL", "\udcff", "is not UTF-8 text"),
        ("TRTD_LOG__\udcff", "info", "is not UTF-8 text"),
    ],
)
def test_a_wrong_variable_is_named(config_dir, name, text, problem):
    """A problem with a variable names the variable in the place of a file, in printable characters."""
    shown = name.replace("\udcff", "\\udcff")
    assert config_dir.problems(environ={name: text}) == [f"environment {shown}: {problem}"]


def test_a_wrong_variable_hides_no_other_problem(config_dir):
    """What is wrong with the files and with the values of other variables is told beside it."""
    environ = {"TRTD_LOG_LEVEL": "info", "TRTD_LOG__LEVEL": "loud"}
    problems = config_dir.problems("tenants.a.queu = {}\n" + MODEL, environ=environ)
    told = "\n".join(problems)
    assert "TRTD_LOG_LEVEL: is no setting" in told
    assert "TRTD_LOG__LEVEL: log.level: must be one of" in told
    assert "tenants.a.queu: unknown key" in told


def test_variables_of_others_are_left_alone(config_dir):
    """What an orchestrator or an image sets beside us is none of our keys and no problem."""
    environ = {
        "TRTD_VERSION": "0.1.0",
        "TRTD_PORT": "tcp://10.0.0.1:80",
        "TRTD_SERVICE_HOST": "10.0.0.1",
        "TRTD_PORT_80_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
        "XTRTD_LOG__LEVEL": "x",
    }
    assert config_dir.load(environ=environ) == config_dir.load()


def test_a_tenant_that_only_a_variable_names_is_incomplete(config_dir):
    """A variable for a tenant without models makes that tenant, so what it lacks is told."""
    (problem,) = config_dir.problems(environ={"TRTD_TENANTS__B__WEIGHT": "2"})
    assert problem.startswith("environment TRTD_TENANTS__B__WEIGHT: tenants.b.models: missing, needs at least one")
