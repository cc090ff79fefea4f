"""The Debian package, without its dependencies: built, installed, upgraded, removed and purged in a root of its own.

`scripts/deb-test` without `--bare` does the same with a daemon that serves meanwhile, in minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "etc" / "debian").glob("p*"))
IN_NAMESPACES = """
set -e
mount -t tmpfs tmpfs "$0"
mkdir "$0/upper" "$0/work" "$0/merged"
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/merged"
chroot "$0/merged" /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'
"""


def why_not(folder: Path) -> str:
    """What this host lacks for a root of its own with a Debian in it; empty when it lacks nothing."""
    missing = [name for name in ("dpkg", "dpkg-deb", "unshare", "chroot") if shutil.which(name) is None]
    if missing:
        return f"there is no {missing[0]}"
    if os.geteuid() != 0:
        return "only root may mount"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--propagation", "private", "bash", "-c", IN_NAMESPACES, folder],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "" if tried.returncode == 0 else f"no overlay over this host: {tried.stderr.strip()}"


def test_install_upgrade_remove_purge(tmp_path):
    """Every check of the scripted session holds, and the host itself is as it was before."""
    lacking = why_not(tmp_path)
    if lacking:
        pytest.skip(lacking)
    listed = sorted(Path("/usr/lib").iterdir())
    done = subprocess.run(
        [ROOT / "scripts" / "deb-test", "--bare"],
        env={**os.environ, "TRTD_BUILDER": sys.executable},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "all is well" in done.stdout
    assert sorted(Path("/usr/lib").iterdir()) == listed


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_package_scripts_are_plain_shell(path):
    """What dpkg runs can be parsed by any POSIX shell, and stops at the first error."""
    assert subprocess.run(["sh", "-n", path], capture_output=True, check=False).returncode == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/sh\n")
    assert "\nset -e\n" in text
