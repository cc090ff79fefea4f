"""The effective configuration as TOML."""

from __future__ import annotations

import tomllib

from tests.support.config import MODEL
from trtd.config.show import show
from trtd.config.values import effective

EVERYTHING = """\
[log]
format = "json"
[operators]
viewer_users = ["alice", "7"]
[router]
curve_secret_key_file = "/key"
[tenants.b]
weight = 3
[tenants.b.models.m]
path = "m \\" \U0001f1e6.onnx"
probe = { path = "p.npz" }
[tenants.b.models.n]
path = "n"
name = "m"
version = "2"
[tenants.b.tcp]
listen = "*:5000"
clients = { laptop = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7" }
[tenants.a.models.m]
path = "m"
"""


def test_what_is_shown_loads_to_the_same(config_dir):
    """Loading the text, with or without origins, gives the same configuration, from every table the model has."""
    loaded = config_dir.load(EVERYTHING)
    for with_origin in (False, True):
        text = show(loaded.config, loaded.origins, with_origin=with_origin)
        shown = config_dir.write("shown/trtd.toml", text)
        assert config_dir.load(config_file=shown).config == loaded.config
        assert list(tomllib.loads(text)["tenants"]) == ["b", "a"]


def test_every_line_names_its_origin(config_dir):
    """With origins asked for, each value's line ends in where it comes from."""
    config_dir.write("vendor.toml", "[log]\nlevel = 'debug'\n")
    loaded = config_dir.load(MODEL, environ={"TRTD_TENANTS__A__SLOTS": "2"})
    lines = show(loaded.config, loaded.origins, with_origin=True).splitlines()
    assert f'level = "debug"  # {config_dir.root}/vendor.toml:2' in lines
    assert f'path = "{config_dir.etc}/m.onnx"  # {config_dir.etc}/trtd.toml:2' in lines
    assert "slots = 2  # environment TRTD_TENANTS__A__SLOTS" in lines
    assert "threads = 1  # default" in lines
    assert all("  # " in line for line in lines if "=" in line)


def test_origins_cover_exactly_the_values_in_force(config_dir):
    """Each value has an origin, and nothing that is not in force has one."""
    loaded = config_dir.load(EVERYTHING)
    assert set(loaded.origins) == {path for path, _ in effective(loaded.config)}
