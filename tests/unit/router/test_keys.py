"""The secret key's file: what is taken and what is refused, in one line."""

from __future__ import annotations

import pytest
import zmq

from trtd.errors import InvalidConfig
from trtd.router.keys import read_secret_key


def test_a_bare_key_and_a_certificate_are_taken(tmp_path):
    """The key stands alone on a line, or in the certificate format of pyzmq."""
    secret = b"#" + zmq.curve_keypair()[1][1:-1] + b"="
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(f"# comment\n{secret.decode()}\n")
    assert read_secret_key(str(file)) == secret
    file.write_text(f'metadata\ncurve\n    public-key = "{"x" * 40}"\n    secret-key = "{secret.decode()}"\n')
    assert read_secret_key(str(file)) == secret


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_use_is_refused(tmp_path, mode):
    """Group and others have no right to the file."""
    file = tmp_path / "key"
    file.write_text("x" * 40)
    file.chmod(mode)
    with pytest.raises(InvalidConfig, match="chmod"):
        read_secret_key(str(file))


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe" * 20, b"x" * 41])
def test_a_file_without_a_key_is_refused(tmp_path, content):
    """What holds no key is said to hold none."""
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_bytes(content)
    with pytest.raises(InvalidConfig):
        read_secret_key(str(file))


def test_no_file_is_refused(tmp_path):
    """A missing file, or none configured, is an error of the configuration."""
    with pytest.raises(InvalidConfig, match="cannot be read"):
        read_secret_key(str(tmp_path / "none"))
    with pytest.raises(InvalidConfig, match="curve_secret_key_file"):
        read_secret_key(None)
