"""The systemd units of the repository as text, and a root directory in which systemd's own tools look at them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "systemd"
NEWER_KEYS = {"RestartSteps", "RestartMaxDelaySec", "DelegateSubgroup"}
"""Keys that systemd knows since 254; an older one names them and goes on."""


def settings(name: str) -> dict[str, list[str]]:
    """The assignments of a unit in their order, by key; sections do not matter here."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def services() -> list[str]:
    """File names of all services."""
    return sorted(path.name for path in FOLDER.glob("*.service"))


def install(root: Path, *drop_ins: str) -> Path:
    """Put the units, these drop-ins, and the units of this host's systemd under a root directory."""
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    units = root / "etc/systemd/system"
    (units / "trtd.service.d").mkdir(parents=True)
    for path in (*FOLDER.glob("*.service"), *FOLDER.glob("*.socket")):
        shutil.copy(path, units)
    for name in drop_ins:
        shutil.copy(FOLDER / "drop-ins" / name, units / "trtd.service.d")
    program = root / "usr/bin/trtd"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    return root


def analyze(*arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines of systemd-analyze, without the lines about keys that are newer than it."""
    outcome = subprocess.run(
        ["systemd-analyze", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    lines = outcome.stdout.splitlines()
    is_newer = [any(f"'{key}'" in line and "ignoring" in line for key in NEWER_KEYS) for line in lines]
    return outcome.returncode, [line for line, newer in zip(lines, is_newer, strict=True) if not newer]
