"""Being another user in a test: only root can, and only in a directory that every user may enter."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65_534

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def may_everybody_enter(directory: Path) -> bool:
    """Whether every user may pass through the directory and all above it."""
    return all(one.stat().st_mode & stat.S_IXOTH for one in (directory, *directory.parents))


@contextmanager
def public_directory() -> Iterator[Path]:
    """A new directory that every user may enter, wherever TMPDIR is; its owner alone may write to it."""
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")]
    reachable = [place for place in places if place.is_dir() and may_everybody_enter(place.resolve())]
    if not reachable:
        pytest.skip(f"other users may enter none of {', '.join(map(str, places))}")
    with tempfile.TemporaryDirectory(dir=reachable[0]) as name:
        Path(name).chmod(0o755)
        yield Path(name)
