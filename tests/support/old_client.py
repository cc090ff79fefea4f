"""The client library and the operators' commands as they first landed, unpacked from the project's history."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIRST = "05542ea0fa8e878e5fc1a6475185554e17f87c82"
"""The first commit that has both."""


@functools.cache
def is_in_history() -> bool:
    """Whether the commit can be had; a shallow clone and an unpacked archive have no history."""
    try:
        return subprocess.run(["git", "-C", ROOT, "cat-file", "-e", FIRST], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def unpack(into: Path) -> None:
    """Write the package of that commit into a folder."""
    packed = subprocess.run(["git", "-C", ROOT, "archive", FIRST, "trtd"], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        # 3.11.4 and later ask for a filter; what git packed from our own history needs none, and 3.11.2 knows none.
        archive.extractall(into, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))


def run(folder: Path, *argv: str) -> str:
    """Run that version's Python with these arguments; what it printed."""
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, *argv], env=environ, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
