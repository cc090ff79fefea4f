"""Runs the proofs under another kernel: User-Mode Linux, a program that is one. Its root is this host's file system."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.systemd.machine import REPOSITORY

MEMORY = "3G"
PATIENCE_S = 1800.0


def run(kernel: str, arguments: Sequence[str]) -> int:
    """Boot the kernel, run `scripts/systemd` with these arguments in it, and return its exit code.

    Raises:
        OSError: the kernel cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="trtd-kernel-") as folder:
        (Path(folder) / "tmp").mkdir()
        (Path(folder) / "arguments").write_text("".join(f"{word}\n" for word in arguments), encoding="utf-8")
        told = {"python": sys.executable, "repository": str(REPOSITORY), "folder": folder}
        subprocess.run(
            [
                *(kernel, "rootfstype=hostfs", "rootflags=/", "rw", f"mem={MEMORY}", "quiet", "loglevel=1"),
                *("con=null", "con0=fd:0,fd:1", f"init={Path(__file__).with_name('init')}"),
                *(f"trtd_{name}={value}" for name, value in told.items()),
            ],
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=False,
        )
        code = Path(folder) / "exit"
        return int(code.read_text(encoding="ascii")) if code.exists() else 2
