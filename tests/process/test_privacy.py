"""No process of trtd sends anything to anybody but its clients, nor gathers anything for that."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.support.daemon import PATIENCE_S, Daemon
from trtd.core.privacy import TELEMETRY_OFF
from trtd.demo import models

TRACED = ["strace", "-DDD", "-f", "-qq", "-e", "trace=socket,connect,open,openat,execve"]
"""`-DDD`: the tracer stands aside, and the traced process is our child."""
OUTSIDE = re.compile(r'socket\(AF_(INET6?|NETLINK)|"/etc/(resolv\.conf|hosts)"|"[^"]*\.onnxruntime[^"]*"')
"""What looks for other hosts, or keeps something for them."""
PLUGIN = """
from pathlib import Path
Path("{path}").touch()
plugin = None
"""


def can_trace() -> bool:
    """Whether strace is there and may trace here."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], check=False, timeout=30).returncode == 0


def has_telemetry(home: Path) -> bool:
    """Whether the installed ONNX Runtime gathers something where nobody forbids it. It is not left the time to send."""
    program = "import onnxruntime, os; onnxruntime.SessionOptions(); os._exit(0)"
    subprocess.run([sys.executable, "-c", program], env=unprotected(home), check=True, timeout=PATIENCE_S)
    return any(home.iterdir())


def unprotected(home: Path) -> dict[str, str]:
    """The environment of somebody who has forbidden nothing, with a home that holds nothing."""
    home.mkdir(parents=True)
    return {**{name: value for name, value in os.environ.items() if name not in TELEMETRY_OFF}, "HOME": str(home)}


@pytest.fixture
def daemon(make_daemon, tmp_path):
    """A daemon with an ONNX model, not started yet."""
    path = tmp_path / "m.onnx"
    path.write_bytes(models.identity(dims=(4,)))
    return make_daemon(
        {"a": {"models": {"m": {"path": str(path)}}, "health": {"beat_s": 10.0}}}, router={"health": {"beat_s": 10.0}}
    )


def use(daemon: Daemon, environ: Mapping[str, str], prefix: list[str]) -> None:
    """A request of this process, and the commands that run or ask for models."""
    with daemon.client() as client:
        assert client.infer("m", {"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[1, 1, 1, 1]]
    trtd = [*prefix, sys.executable, "-m", "trtd.cli.main"]
    where = ["--runtime-dir", str(daemon.runtime_dir)]
    for command in (
        ["infer", "a", "m", *where],
        ["bench", "a", "m", "--requests", "50", "--warmup", "0.1", *where],
        ["bench", "a", "m", "--requests", "50", "--warmup", "0.1", "--bare", "--config", str(daemon.config_file)],
    ):
        subprocess.run([*trtd, *command], env=environ, check=True, timeout=PATIENCE_S, stdout=subprocess.DEVNULL)


def test_nothing_is_gathered(daemon, tmp_path):
    """Where ONNX Runtime alone leaves files for its reports, a daemon, its workers and the commands leave none."""
    if not has_telemetry(tmp_path / "other"):
        pytest.skip("the installed ONNX Runtime gathers nothing")
    environ = unprotected(tmp_path / "home")
    daemon.start(environ=environ)
    daemon.wait_ready()
    use(daemon, environ, [])
    assert daemon.stop() == 0
    assert list((tmp_path / "home").rglob("*")) == []
    assert daemon.events("telemetry.switched_off")[0]["by"] == sorted(TELEMETRY_OFF)


def test_no_other_host_is_looked_for(daemon, tmp_path):
    """The system calls of the daemon, its children and the commands open no socket to other hosts, nor look for any."""
    if not can_trace():
        pytest.skip("strace is not there, or may not trace")
    environ = unprotected(tmp_path / "home")
    daemon.start(environ=environ, prefix=[*TRACED, "-o", str(tmp_path / "daemon.trace")])
    daemon.wait_ready()
    use(daemon, environ, [*TRACED, "-o", str(tmp_path / "commands.trace"), "-A"])
    assert daemon.stop() == 0
    lines = [line for name in ("daemon", "commands") for line in (tmp_path / f"{name}.trace").read_text().splitlines()]
    assert sum("trtd.worker.main" in line for line in lines) == 1
    assert sum("--bare" in line for line in lines) == 1
    assert [line for line in lines if OUTSIDE.search(line)] == []


def test_no_plugin_sees_what_is_configured(daemon, tmp_path):
    """A package that offers itself to pydantic as a plugin, to report what is validated, is not imported."""
    site, seen = tmp_path / "site", tmp_path / "seen"
    info = site / "watcher-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: watcher\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pydantic]\nwatcher = watcher:plugin\n")
    (site / "watcher.py").write_text(PLUGIN.format(path=seen))
    environ = {**unprotected(tmp_path / "home"), "PYTHONPATH": str(site)}
    validate = "import pydantic; pydantic.create_model('M', x=(int, ...))"
    subprocess.run([sys.executable, "-c", validate], env=environ, timeout=PATIENCE_S)
    assert seen.exists()
    seen.unlink()
    check = [sys.executable, "-m", "trtd.cli.main", "config", "check", "--config", str(daemon.config_file)]
    subprocess.run(check, env=environ, check=True, timeout=PATIENCE_S, stdout=subprocess.DEVNULL)
    assert not seen.exists()
