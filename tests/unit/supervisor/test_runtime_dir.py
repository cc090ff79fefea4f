"""The runtime directory and its lock."""

from __future__ import annotations

import os
import shutil
from contextlib import closing

import pytest

from trtd.errors import NotAllowed, Unavailable
from trtd.supervisor import runtime_dir


def test_it_is_made_and_open_for_passing(tmp_path):
    """A missing directory is made, parents too, so that clients can reach the sockets, and made again without harm."""
    path = tmp_path / "a/b"
    for _ in range(2):
        runtime_dir.prepare(str(path))
    assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777])
def test_one_that_others_may_write_is_refused(tmp_path, mode):
    """A group- or world-writable directory is refused, because others could put sockets in our place."""
    path = tmp_path / "run"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(NotAllowed, match="0755"):
        runtime_dir.prepare(str(path))


def test_one_of_somebody_else_is_refused(tmp_path, monkeypatch):
    """A directory of another user is refused, with both uids in the line."""
    path = tmp_path / "run"
    path.mkdir()
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(NotAllowed, match=f"not to uid {other}"):
        runtime_dir.prepare(str(path))


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_is_refused(tmp_path, kind):
    """A file, or a link to wherever, is no runtime directory."""
    path = tmp_path / "run"
    if kind == "file":
        path.touch()
    else:
        (tmp_path / "real").mkdir()
        path.symlink_to(tmp_path / "real")
    with pytest.raises(NotAllowed):
        runtime_dir.prepare(str(path))


def test_one_daemon_holds_the_lock(tmp_path):
    """The second one is told the pid of the first, and may have the lock when that one is gone."""
    with closing(runtime_dir.Lock(str(tmp_path))), pytest.raises(Unavailable, match=f"pid {os.getpid()}"):
        runtime_dir.Lock(str(tmp_path))
    runtime_dir.Lock(str(tmp_path)).close()


def test_a_lost_lock_is_taken_again(tmp_path):
    """File or directory gone: made again and locked; where another daemon came first, its lock stands."""
    directory = tmp_path / "run"
    runtime_dir.prepare(str(directory))
    with closing(runtime_dir.Lock(str(directory))) as lock:
        for destroy in (lambda: (directory / "daemon.lock").unlink(), lambda: shutil.rmtree(directory)):
            lock.look_after()
            destroy()
            lock.look_after()
            with pytest.raises(Unavailable):
                runtime_dir.Lock(str(directory))
        shutil.rmtree(directory)
        runtime_dir.prepare(str(directory))
        with closing(runtime_dir.Lock(str(directory))), pytest.raises(Unavailable):
            lock.look_after()
        lock.look_after()
        with pytest.raises(Unavailable):
            runtime_dir.Lock(str(directory))
