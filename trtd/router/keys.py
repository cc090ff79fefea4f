"""The daemon's CURVE secret key, read from its file each time that a tcp endpoint is bound."""

from __future__ import annotations

import os
import re

from trtd.core.key_files import is_private
from trtd.errors import InvalidConfig
from trtd.files import open_regular

# Z85 has `#`, `=` and no quotes or spaces.
_KEY = re.compile(r"""^[ \t]*(?:secret-key[ \t]*=[ \t]*"([!-~]{40})"|([!-~]{40}))[ \t]*$""", re.MULTILINE)


def read_secret_key(file: str | None) -> bytes:
    """The Z85 secret key: a line with the bare key, or the line `secret-key = "..."` of a certificate of `zmq.auth`.

    Raises:
        InvalidConfig: there is no such file, others than its owner may use it, or it holds no key.
    """
    if file is None:
        raise InvalidConfig("a tcp endpoint needs router.curve_secret_key_file")
    try:
        with open_regular(file) as stream:
            status = os.fstat(stream.fileno())
            text = stream.read(16 * 1024).decode("ascii")
    except OSError as error:
        raise InvalidConfig(
            f"{file}: the secret key cannot be read: {(error.strerror or str(error)).lower()}"
        ) from None
    except ValueError:
        raise InvalidConfig(f"{file}: the secret key cannot be read: it is no text") from None
    if not is_private(status.st_mode, status.st_uid, status.st_gid):
        raise InvalidConfig(f"{file}: others than its owner may use the secret key; chmod it to 0600")
    found = _KEY.search(text)
    if found is None:
        raise InvalidConfig(f"{file}: holds no secret key of 40 Z85 characters")
    return (found[1] or found[2]).encode()
