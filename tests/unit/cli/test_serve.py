"""`trtd config` and where `trtd serve` takes its configuration from."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from trtd.cli import serve
from trtd.cli.main import main
from trtd.config import load as loading
from trtd.demo.models import mlp
from trtd.errors import Usage

MODEL = '[tenants.a.models.m]\npath = "m.onnx"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "m.onnx").write_bytes(mlp(1))
    path = tmp_path / "trtd.toml"
    path.write_text("version = 1\n" + MODEL, encoding="utf-8")
    return path


def make_args(**changes: object) -> argparse.Namespace:
    defaults = {"config": None, "model": [], "runtime_dir": None, "log_format": None, "log_level": None}
    return argparse.Namespace(**(defaults | changes))


def test_a_daemon_of_flags_alone_reads_no_system_file(config):
    """With --model and nothing else /etc is left alone; with --config, or without --model, files are read."""
    assert serve.sources(make_args(model=["m=m.onnx"])).system_file is None
    assert serve.sources(make_args()).system_file == loading.SYSTEM_FILE
    chosen = serve.sources(make_args(model=["m=m.onnx"], config=str(config)))
    assert (chosen.config_file, chosen.system_file) == (config, loading.SYSTEM_FILE)


def test_flags_become_values():
    """Each flag sets its key, and a wrong --model is a mistake in use."""
    chosen = serve.sources(make_args(model=["m=m.onnx"], runtime_dir="/r", log_format="json", log_level="debug"))
    assert {override.path: override.value for override in chosen.overrides} == {
        ("tenants", "default", "models", "m", "path"): "m.onnx",
        ("daemon", "runtime_dir"): "/r",
        ("log", "format"): "json",
        ("log", "level"): "debug",
    }
    with pytest.raises(Usage, match="NAME=FILE"):
        serve.sources(make_args(model=["m"]))


def test_config_check(config, capsys):
    """A configuration that can be used is called valid; otherwise every problem is one line and the exit code is 78."""
    assert main(["config", "check", "--config", str(config)]) == 0
    assert capsys.readouterr().out == f"valid: 1 tenants, from {config}\n"
    config.write_text("version = 1\nnonsense = 1\n[log]\nlevel = 3\n" + MODEL, encoding="utf-8")
    assert main(["config", "check", "--config", str(config)]) == 78
    told = capsys.readouterr()
    assert told.err == ""
    assert len(told.out.splitlines()) == 2
    assert "nonsense" in told.out


def test_config_show(config, capsys):
    """Every value is shown as TOML, with its origin when asked; one that cannot be used is an error."""
    assert main(["config", "show", "--config", str(config)]) == 0
    plain = capsys.readouterr().out
    assert "[tenants.a.models.m]" in plain
    assert "#" not in plain
    assert main(["config", "show", "--origin", "--config", str(config)]) == 0
    assert f"# {config}" in capsys.readouterr().out
    assert main(["config", "show", "--config", str(config.parent / "other.toml")]) == 78
    assert capsys.readouterr().err.startswith("trtd: invalid_config: ")


def test_serving_nothing_is_refused(tmp_path, capsys):
    """`trtd serve` without any tenant says what to configure, and starts nothing."""
    path = tmp_path / "trtd.toml"
    path.write_text("version = 1\n", encoding="utf-8")
    assert main(["serve", "--config", str(path), "--runtime-dir", str(tmp_path / "run")]) == 78
    assert "no tenant is configured" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
