"""Bundles: what is packed comes out, what breaks a bound is refused, and what is split stays within the bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtd.errors import Malformed
from trtd.wire import packing
from trtd.wire.bundles import (
    MAX_BUNDLE_BYTES,
    MAX_BUNDLED,
    MAX_BUNDLED_BYTES,
    pack_bundle,
    split_for_bundles,
    unpack_bundle,
)

MESSAGES = st.lists(st.lists(st.binary(max_size=200), min_size=1, max_size=5), min_size=1, max_size=MAX_BUNDLED)


@given(MESSAGES)
def test_what_is_packed_comes_out(messages):
    """Every message keeps its frames, in order."""
    assert [[bytes(frame) for frame in one] for one in unpack_bundle(pack_bundle(messages))] == messages


@given(st.binary(max_size=300), st.integers(0, 400))
def test_damage_is_malformed_and_nothing_else(noise, cut):
    """Noise, and a bundle cut anywhere, is read as messages or refused."""
    for data in (noise, pack_bundle([[b"header", b"x" * 100], [b"more"]])[:cut]):
        try:
            unpack_bundle(data)
        except Malformed:
            continue
        assert data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "no messages"),
        (pack_bundle([[b"h"]] * (MAX_BUNDLED + 1)), "more than 64 messages"),
        (pack_bundle([[]]), "has no frame"),
        (bytes(MAX_BUNDLE_BYTES + 1), "the most is"),
        (packing.HEAD.pack(packing.MAGIC, 2, 32) + bytes(16) + bytes(16), "shorter"),
        (packing.HEAD.pack(packing.MAGIC, 1, 16) + (100).to_bytes(8, "little") + bytes(8), "longer"),
        (packing.HEAD.pack(packing.MAGIC, 1, 32), "not whole"),
    ],
)
def test_bounds_are_kept(data, text):
    """Too many messages, too many bytes, empty ones and tables that do not add up are refused in words."""
    with pytest.raises(Malformed, match=text):
        unpack_bundle(data)


@given(st.lists(st.integers(0, 2 * MAX_BUNDLED_BYTES), max_size=30))
def test_a_split_keeps_order_and_bounds(sizes):
    """Parts of several messages can be packed and unpacked again; large messages are alone; nothing is lost."""
    messages = [[b"h", bytes(size)] for size in sizes]
    parts = split_for_bundles(messages)
    assert [one for part in parts for one in part] == messages
    for part in parts:
        if len(part) > 1:
            assert len(unpack_bundle(pack_bundle(part))) == len(part)
            assert all(len(frames[1]) <= MAX_BUNDLED_BYTES for frames in part)
