"""Which tensors of a call travel through shared memory, and where there.

A large input that lies in an arena already is named where it is; any other large one is copied into a region, once. An
area for the outputs goes with the call as soon as an answer has told how large they are. Whatever finds no place
travels in a frame, and the frames of the whole call are kept for the case that it has to be sent again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trtd.client.answers import Area
from trtd.client.arenas import Arenas
from trtd.client.arguments import array_of_shape
from trtd.client.calls import SHARED_FROM_BYTES, Form
from trtd.client.memory import Region
from trtd.client.pending import Placement
from trtd.errors import TooLarge, Usage
from trtd.wire.arenas import ArenaRef, encode_ref


def place(form: Form, frames: Sequence[Any], arenas: Arenas, now: float) -> Placement | None:
    """Find places for what is large in this call; None when all of it travels in frames.

    Args:
        form: of the call.
        frames: its tensor frames; the large ones are views of arrays.
        arenas: of the client.
        now: monotonic seconds.
    """
    if arenas.is_expecting:
        arenas.attend(now)
    epoch = arenas.epoch
    placed = list(frames)
    regions: list[Region] = []
    refs: dict[int, ArenaRef] = {}
    for position in form.large:
        ref = _place_input(frames[position].obj, arenas, regions, now)
        if ref is not None:
            refs[position] = ref
            placed[position] = encode_ref(ref)
    area = _take_area(form.outputs.area_bytes, arenas, now) if form.outputs.area_bytes else None
    if area is not None:
        placed.append(encode_ref(area.ref))
    if area is None and not refs:
        return None
    try:
        placed_form = form.placed(tuple(refs), has_area=area is not None)
    except TooLarge:
        return None
    keys = {ref.key for ref in refs.values()}
    if area is not None:
        keys.add(area.ref.key)
    return Placement(placed_form, placed, area, epoch, keys, regions)


def empty(shape: int | Sequence[int], dtype: Any, arenas: Arenas, now: float) -> np.ndarray[Any, Any]:
    """An array that lies in an arena where it is large enough and there is room, an ordinary one otherwise."""
    dims, element = array_of_shape(shape, dtype)
    size_bytes = math.prod(dims) * element.itemsize
    is_large = size_bytes >= SHARED_FROM_BYTES and not element.hasobject
    region = arenas.take_unoffered(size_bytes, now) if is_large else None
    try:
        return np.empty(dims, element) if region is None else np.ndarray(dims, element, region.array())
    except ValueError as error:
        raise Usage(f"there is no array of such a shape: {error}") from None


def _place_input(flat: np.ndarray[Any, Any], arenas: Arenas, regions: list[Region], now: float) -> ArenaRef | None:
    ref = arenas.find(flat.ctypes.data, flat.nbytes)
    if ref is not None:
        return ref
    region = arenas.take(flat.nbytes, now)
    # Read once: another thread may withdraw the arena meanwhile, and the router then says that it does not know it.
    key = None if region is None else region.key
    if region is None or key is None:
        return None
    np.copyto(region.array(), flat)
    regions.append(region)
    return region.ref(key)


def _take_area(size_bytes: int, arenas: Arenas, now: float) -> Area | None:
    region = arenas.take(size_bytes, now, is_area=True)
    key = None if region is None else region.key
    if region is None or key is None:
        return None
    return Area(region.ref(key), region)
