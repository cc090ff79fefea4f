"""Whether a file with a secret key is closed to others, told from its owner and its mode."""

from __future__ import annotations

PERMISSIONS = 0o777
OTHERS = 0o077
CREDENTIAL = 0o440
"""systemd opens a credential to a service by an access list on a file of root, which shows as a right of its group."""


def is_private(mode: int, uid: int, gid: int) -> bool:
    """Whether nobody but its owner may use the file, or it is one of systemd's credentials."""
    return not mode & OTHERS or (uid == gid == 0 and mode & PERMISSIONS == CREDENTIAL)
