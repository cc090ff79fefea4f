"""Golden frames: the bytes of wire protocol v1 do not change."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.golden import FOLDER, GOLDEN, path_of


@pytest.mark.parametrize("name", GOLDEN)
def test_decodes_to_its_message(name: str) -> None:
    """A frame written by any version 1 side still means the same."""
    golden = GOLDEN[name]
    decoded = golden.decode(path_of(name).read_bytes())
    if isinstance(golden.message, np.ndarray):
        np.testing.assert_array_equal(decoded, golden.message)
        assert decoded.dtype == golden.message.dtype.newbyteorder("<")
    else:
        assert decoded == golden.message


@pytest.mark.parametrize("name", GOLDEN)
def test_encodes_to_the_same_bytes(name: str) -> None:
    """A message is still written as the very bytes that were written when version 1 was published."""
    golden = GOLDEN[name]
    assert golden.encode(golden.message).hex() == path_of(name).read_bytes().hex()


def test_no_file_is_without_a_message() -> None:
    """Every file in the folder belongs to a message, so that none is forgotten when names change."""
    assert {path.name for path in FOLDER.iterdir()} == {path_of(name).name for name in GOLDEN}
