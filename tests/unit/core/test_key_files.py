"""Who may be able to read a secret key."""

from __future__ import annotations

import pytest

from trtd.core.key_files import is_private


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "expected"),
    [
        (0o600, 1000, 1000, True),
        (0o400, 0, 0, True),
        (0o440, 0, 0, True),
        (0o440, 1000, 1000, False),
        (0o440, 0, 1000, False),
        (0o640, 0, 0, False),
        (0o444, 0, 0, False),
        (0o604, 1000, 1000, False),
    ],
)
def test_only_the_owner_may_use_a_key(mode, uid, gid, expected):
    """A key is closed to everybody but its owner; a credential as systemd makes it is taken for closed."""
    assert is_private(0o100000 | mode, uid, gid) == expected
