"""Which tensors travel in shared memory: what happens to the arena meanwhile changes nothing for the call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from trtd.client.arenas import Arenas
from trtd.client.calls import Form
from trtd.client.placing import place
from trtd.wire.arenas import ArenaRef, decode_ref

KEY = 7


class FleetingRegion:
    """A region whose arena is withdrawn by another thread right after its key was read."""

    def __init__(self):
        self._keys = iter((KEY,))

    @property
    def key(self):
        return next(self._keys, None)

    def ref(self, key):
        return ArenaRef(key, 128, 8)

    def array(self):
        return np.empty(8, np.uint8)


def test_an_arena_that_is_withdrawn_meanwhile_breaks_no_call():
    """Input and area are named by the key that was read: the router knows it no more, and says so by a typed error."""
    arenas = SimpleNamespace(is_expecting=False, epoch=1, find=lambda *_: None, take=lambda *_, **__: FleetingRegion())
    form = SimpleNamespace(
        large=(0,), outputs=SimpleNamespace(area_bytes=8), placed=lambda positions, has_area: (positions, has_area)
    )
    frame = memoryview(np.zeros(8, np.uint8))
    placement: Any = place(cast("Form", form), [frame], cast("Arenas", arenas), 0.0)
    assert [decode_ref(one).key for one in placement.frames] == [KEY, KEY]
    assert placement.keys == {KEY}
