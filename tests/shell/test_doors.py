"""A listening unix socket: what it takes the place of, what it leaves alone, and how it is found again."""

from __future__ import annotations

import shutil
import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from trtd.child.doors import Door


def connect(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.connect(str(path))
    return sock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "door.sock"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_it_appears_with_its_mode_and_goes_with_its_end(path, kind):
    """Who connects is accepted, one after the other; nothing stays behind."""
    door = Door(path, 0o640, kind)
    assert door.accept() is None
    door.open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert door.accept() is None
    with connect(path, kind) as guest, closing(door.accept()) as taken:
        guest.send(b"hello")
        assert taken.recv(100) == b"hello"
    door.close()
    door.close()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("what", ["path", "directory", "another socket"])
def test_what_was_taken_away_is_noticed_and_mended(path, what):
    """Path gone, directory gone, or a dead socket in its place: it is not in place, and is again once opened."""
    with closing(Door(path, 0o600)) as door:
        door.open()
        assert door.is_in_place()
        if what == "directory":
            shutil.rmtree(path.parent)
        else:
            path.unlink()
        if what == "another socket":
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
        assert not door.is_in_place()
        door.open()
        assert door.is_in_place()
        with connect(path), closing(door.accept()):
            pass


def test_what_is_not_ours_stays(path):
    """A file at the path, or the socket of a process that listens, is named and left alone."""
    path.parent.mkdir()
    path.write_text("mine")
    with closing(Door(path, 0o600)) as door:
        with pytest.raises(FileExistsError, match="no socket"):
            door.open()
        assert path.read_text() == "mine"
        path.unlink()
        door.open()
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            with pytest.raises(OSError, match="another process listens"):
                door.open()
        door.close()
        assert path.is_socket()


def test_a_successor_takes_the_place_at_once(path):
    """The socket of a former process is replaced though it listens still, and its end takes nothing away."""
    former, successor = Door(path, 0o600), Door(path, 0o600)
    former.open()
    successor.open()
    assert (former.is_in_place(), successor.is_in_place()) == (False, True)
    former.close()
    assert path.is_socket()
    successor.close()
    assert not path.exists()


def test_a_lent_socket_is_used_while_it_is_found(path):
    """A copy of another process's socket takes connections and leaves its path; lost, a socket of our own follows."""
    lender = Door(path, 0o600)
    lender.open()
    door = Door.lent(path, 0o600, lender.fileno())
    assert door.is_in_place()
    while (knock := door.accept()) is not None:
        # It was asked whether anybody is there.
        knock.close()
    with connect(path), closing(door.accept()) as taken:
        assert taken is not None
    door.close()
    assert lender.is_in_place()
    with closing(Door.lent(path, 0o600, lender.fileno())) as another:
        path.unlink()
        assert not another.is_in_place()
        another.open()
        assert another.is_in_place()
        with connect(path), closing(another.accept()) as taken:
            assert taken is not None
    assert not path.exists()
    lender.close()


def test_a_lent_socket_that_nobody_finds_is_not_used(path):
    """Where the path was deleted before, the door is closed and opens a socket of its own."""
    lender = Door(path, 0o600)
    lender.open()
    path.unlink()
    with closing(lender), closing(Door.lent(path, 0o600, lender.fileno())) as door:
        assert not door.is_open
        door.open()
        assert door.is_in_place()
