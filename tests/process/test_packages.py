"""The sdist and the wheel: built as a release is, complete, and working where they are installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import trtd
from trtd.demo.models import mlp
from trtd.manual.files import made_files

ROOT = Path(__file__).parents[2]
SHARED = {
    "share/man/man1/trtd.1",
    "share/man/man5/trtd.toml.5",
    "share/man/man8/trtd.8",
    "share/bash-completion/completions/trtd",
    "share/zsh/vendor-completions/_trtd",
    "share/fish/vendor_completions.d/trtd.fish",
    "share/doc/trtd/examples/trtd.toml",
    "share/doc/trtd/examples/trtd-minimal.toml",
    "share/doc/trtd/examples/supervisord.conf",
    "share/trtd/status-v1.schema.json",
    "share/trtd/grafana/trtd.json",
    "share/trtd/prometheus/trtd.rules.yml",
    "share/trtd/systemd/trtd.service",
    "share/trtd/systemd/trtd@.socket",
    "share/trtd/systemd/sysusers.d/trtd.conf",
    "share/trtd/systemd/tmpfiles.d/trtd.conf",
}
PACKAGES = {"etc", "scripts", "systemd", "tests", "trtd"}


def run(*argv: str | Path, **environ: str) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=110, cwd=ROOT, env={**os.environ, **environ}, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel; the wheel is built from the sdist and so proves it complete."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


def test_the_sdist_has_the_project(dist):
    """Sources, tests, scripts, units and samples are in it, and nothing that somebody's work left lying about."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*made_files(), "README.md", "LICENSE", "CHANGELOG.md", "trtd/py.typed", "systemd/trtd.service"} <= names
    assert {name.partition("/")[0] for name in names if "/" in name} == PACKAGES
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".whl", ".plan"))]


def test_the_wheel_has_the_package_and_what_an_operator_needs(dist):
    """Every module, man pages, completions, units and samples are in it, and neither tests nor scripts."""
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    data = f"trtd-{trtd.__version__}.data/data/"
    assert {name.removeprefix(data) for name in names if name.startswith(data)} >= SHARED
    modules = {str(module.relative_to(ROOT)) for module in (ROOT / "trtd").rglob("*.py")}
    assert modules | {"trtd/py.typed"} <= names
    assert not [name for name in names if not name.startswith(("trtd/", f"trtd-{trtd.__version__}."))]


def test_the_wheel_works_in_a_fresh_environment(dist, tmp_path):
    """Installed alone it runs the command, and man pages and completions lie where programs look for them."""
    (wheel,) = dist.glob("*.whl")
    fresh = tmp_path / "fresh"
    venv.create(fresh, with_pip=False, symlinks=True)
    python = fresh / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel)
    # Dependencies are those of the tests. A folder added so adds no .pth files of its own: trtd is the wheel's.
    (site,) = fresh.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    assert run(fresh / "bin" / "trtd", "--version", PYTHONPATH="") == f"trtd {trtd.__version__}\n"
    where = run(python, "-P", "-c", "import trtd; print(trtd.__file__)", PYTHONPATH="")
    assert where == f"{site / 'trtd' / '__init__.py'}\n"
    (tmp_path / "m.onnx").write_bytes(mlp(seed=1))
    model = {"TRTD_TENANTS__A__MODELS__M__PATH": str(tmp_path / "m.onnx"), "PYTHONPATH": ""}
    assert run(fresh / "bin" / "trtd", "config", "check", **model).startswith("valid: 1 tenants")
    assert not [name for name in SHARED if not (fresh / name).is_file()]
