"""Bundles: what is packed comes out, what breaks a bound is refused, and what is split stays within the bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wire import pack_bundle
from trtd.errors import Malformed
from trtd.wire import packing
from trtd.wire.bundles import (
    BUNDLE_HEADER,
    MAX_BUNDLE_BYTES,
    MAX_BUNDLED,
    MAX_BUNDLED_BYTES,
    pack_bundles,
    unpack_bundle,
)

MESSAGES = st.lists(st.lists(st.binary(max_size=200), min_size=1, max_size=5), min_size=1, max_size=MAX_BUNDLED)


@given(MESSAGES)
def test_what_is_packed_comes_out(messages):
    """Every message keeps its frames, in order."""
    assert [[bytes(frame) for frame in one] for one in unpack_bundle(pack_bundle(messages))] == messages


def unpacked_one_by_one(data: bytes) -> list[list[bytes]] | None:
    """The frames of the messages, None where one cannot be read."""
    messages = []
    at = 0
    try:
        while at < len(data):
            frames, at = packing.unpack(memoryview(data), at)
            messages.append([bytes(frame) for frame in frames])
    except Malformed:
        return None
    return messages


@given(st.lists(st.integers(0, 40), min_size=1, max_size=3), st.integers(1, 5), st.data())
def test_messages_that_are_laid_out_alike(sizes, count, data):
    """Messages of the same sizes are read as they are one by one, whatever is damaged, cut off or put in between."""
    bundle = pack_bundle([[bytes([number]) * size for size in sizes] for number in range(count)])
    start, end = (data.draw(st.integers(0, len(bundle))) for _ in range(2))
    changed = bundle[:start] + data.draw(st.binary(max_size=3)) + bundle[max(start, end) :]
    for each in (bundle, changed, bundle + pack_bundle([[b"other"]])):
        expected = unpacked_one_by_one(each)
        if expected:
            assert [[bytes(frame) for frame in one] for one in unpack_bundle(each)] == expected
        else:
            with pytest.raises(Malformed):
                unpack_bundle(each)


@pytest.mark.parametrize("size", [16, packing.COPIED_BYTES])
def test_each_table_of_a_bundle_counts(size):
    """A message that says of its frames something else than the first one does is not read like the first one."""
    bundle = bytearray(pack_bundle([[b"a" * 16, b"b" * size]] * 3))
    table = bundle.index(b"a" * 16) - 16
    step = len(bundle) // 3
    for number in (1, 2):
        changed = bundle.copy()
        changed[table + number * step] = 8
        assert [len(one[0]) for one in unpack_bundle(changed)] == [8 if each == number else 16 for each in range(3)]


@pytest.mark.parametrize(("size", "is_copied"), [(8000, True), (packing.COPIED_BYTES, False)])
def test_a_small_message_does_not_keep_its_bundle(size, is_copied):
    """Frames of small messages can be kept without the rest; larger ones are not copied. Both are what was packed."""
    messages = [[bytes([number]), bytes([number]) * size] for number in range(3)]
    unpacked = unpack_bundle(pack_bundle(messages))
    assert [[*map(bytes, one)] for one in unpacked] == messages
    assert {type(frame) for one in unpacked for frame in one} == {bytes if is_copied else memoryview}


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
    travelling = pack_bundles(messages)
    assert [one for _, together in travelling for one in together] == messages
    for frames, together in travelling:
        if len(together) > 1:
            assert frames == [BUNDLE_HEADER, pack_bundle(together)]
            assert [[*map(bytes, one)] for one in unpack_bundle(frames[1])] == together
            assert all(len(tensor) <= MAX_BUNDLED_BYTES for _, tensor in together)
        else:
            assert frames is together[0]
