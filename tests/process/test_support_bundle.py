"""`trtd support-bundle` against a daemon that has secrets: everything useful is inside, and nothing secret."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import zmq

from tests.support.daemon import tenant
from tests.support.ports import free_port

CANARY = 16777213.0
"""First element of a tensor, of more digits than turn up by chance. It has no place in a bundle, also not as bytes."""


def make_bundle(daemon, *flags: str) -> dict[str, str]:
    path = daemon.directory / "bundle.tar.gz"
    argv = [sys.executable, "-m", "trtd.cli.main", "support-bundle", "--output", str(path), *flags]
    environ = {**os.environ, "TRTD_CANARY": "canary-of-the-environment"}
    made = subprocess.run(argv, capture_output=True, text=True, timeout=110, cwd=daemon.directory, env=environ)
    assert made.returncode == 0, made.stderr
    assert str(path) in made.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        return {
            Path(entry.name).name: archive.extractfile(entry).read().decode() for entry in archive if entry.isfile()
        }


def test_a_bundle_has_everything_but_secrets(make_daemon):
    """Configuration, status, faults, versions, doctor and log are there; keys, tensors and environment are not."""
    _, secret = (key.decode() for key in zmq.curve_keypair())
    client, client_secret = (key.decode() for key in zmq.curve_keypair())
    daemon = make_daemon(
        {"a": tenant(tcp={"listen": f"127.0.0.1:{free_port()}", "clients": {"laptop": client}})},
        router={"curve_secret_key_file": "router.key"},
    )
    key_file = daemon.directory / "router.key"
    key_file.touch(0o600)
    key_file.write_text(f"{secret}\n", encoding="ascii")
    daemon.start()
    daemon.wait_ready()
    with daemon.client("a") as asker:
        asker.infer("echo", {"x": np.full((1, 4), CANARY, np.float32)}, timeout=10)
    daemon.kill_worker("a", number=signal.SIGKILL)
    daemon.wait_event("worker.exited")
    with daemon.log_file.open("a", encoding="utf-8") as log:
        log.write(f"a line with {secret} and token={client_secret}\n")
    parts = make_bundle(daemon, "--config", str(daemon.config_file), "--log", str(daemon.log_file))
    assert set(parts) == {
        "config.toml", "status.json", "faults.json", "versions.json", "host.json", "doctor.json", "log.txt",
    }  # fmt: skip
    assert f'runtime_dir = "{daemon.runtime_dir}"' in parts["config.toml"]
    assert str(key_file) in parts["config.toml"]
    assert json.loads(parts["status.json"])["tenants"][0]["name"] == "a"
    assert [fault["name"] for fault in json.loads(parts["faults.json"])] == ["a/0"]
    assert json.loads(parts["versions.json"])["protocols"]["wire"] == 1
    assert "worker.exited" in parts["log.txt"]
    told = "\n".join(parts.values())
    for canary in (secret, client_secret, client, "canary-of-the-environment", str(CANARY), str(int(CANARY))):
        assert canary not in told


def test_a_bundle_of_a_broken_host(make_daemon):
    """Without a daemon and with a configuration that cannot be used there is a bundle that says so."""
    daemon = make_daemon()
    daemon.config_file.write_text('version = 1\n[tenants.a]\npassword = "canary-hunter2"\n', encoding="utf-8")
    parts = make_bundle(daemon, "--config", str(daemon.config_file), "--runtime-dir", str(daemon.runtime_dir))
    assert "trtd.toml:3: tenants.a.password" in parts["config-problems.txt"]
    assert json.loads(parts["status.json"])["error"]["code"] == "unreachable"
    assert "--log" in parts["log.txt"]
    assert "canary-hunter2" not in "\n".join(parts.values())
