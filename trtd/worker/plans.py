"""What a valid header asks for, and how the frames beside it become inputs: in their frames, or in shared memory.

Whatever a client does to its shared memory while its request runs may hurt its own answer only. So whole numbers and
bools are copied before anything looks at them: an index that changed after a runtime's check would reach outside of the
runtime's buffers. What a runtime copies itself is used where it lies, and so are large inputs of floats: those that
steer an operator (the scales of a resize, regions of interest) are small, and copied.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Never

from trtd.core.batching import BatchLimits
from trtd.errors import ArenaUnknown, Malformed
from trtd.runtime.inputs import Inputs, Layout
from trtd.wire.arenas import ArenaRef, decode_ref
from trtd.wire.frames import payload_bytes
from trtd.wire.messages import Dtype, Place, TensorSpec
from trtd.worker.arenas import Area, Arena, Arenas

if TYPE_CHECKING:
    from trtd.worker.validate import ServedModel

FLOATS = frozenset(dtype for dtype in Dtype if dtype.startswith(("float", "bfloat", "complex")))
MIN_IN_PLACE_BYTES = 64 * 1024
"""Smaller inputs are copied whatever they are: that takes a few microseconds."""


class Plan:
    """What requests with equal headers ask for, apart from their ids and their tensors' bytes.

    Attributes:
        model: what is to run.
        layout: its inputs, in the order of the model.
        items: their first dimension; 1 where the model is not batched.
        group: requests of equal groups may share a batch; None runs alone.
        limits: when their batch closes.
        sizes: bytes of each input.
        is_plain: whether the frames are the inputs as they stand, once their sizes are right.
    """

    def __init__(
        self,
        model: ServedModel,
        layout: Layout,
        group: Hashable | None,
        limits: BatchLimits,
        order: Sequence[int],
        *,
        has_area: bool,
    ) -> None:
        """Prepare for reading.

        Args:
            model: see above.
            layout: see above.
            group: see above.
            limits: see above.
            order: for each input of the layout the place of its frame in the message.
            has_area: whether the last frame says where the outputs may be written.
        """
        self.model = model
        self.layout = layout
        self.items = layout.items
        self.group = group
        self.limits = limits
        self.sizes = [payload_bytes(spec) for spec in layout.specs]
        self._order = None if list(order) == sorted(order) else tuple(order)
        self._has_area = has_area
        self._has_bools = any(spec.dtype is Dtype.BOOL for spec in layout.specs)
        self._in_arenas = [
            (place, _must_be_copied(spec, copies_inputs=model.model.copies_inputs))
            for place, spec in enumerate(layout.specs)
            if spec.place is Place.ARENA
        ]
        self.is_plain = not (has_area or self._order or self._has_bools or self._in_arenas)

    def read(self, frames: Sequence[Any], arenas: Arenas | None = None) -> Inputs:
        """The inputs of one request.

        Args:
            frames: of its tensors, and of its area: `bytes`, or flat `memoryview`s of bytes.
            arenas: where those lie that are not in their frames; None where there is no shared memory.

        Raises:
            trtd.errors.Malformed: the frames are not what the header says.
            trtd.errors.ArenaUnknown: they name shared memory that is not here.
        """
        area = None
        if self._has_area and frames:
            *frames, last = frames
            area = _area(last, arenas)
        if len(frames) != len(self.sizes):
            raise Malformed(f"the header names {len(self.sizes)} tensors, the message has {len(frames)} tensor frames")
        if self._order is not None:
            frames = [frames[place] for place in self._order]
        if self._in_arenas:
            frames = list(frames)
            for place, must_be_copied in self._in_arenas:
                ref = decode_ref(frames[place])
                found = _find(ref, arenas).view(ref.offset, ref.size_bytes)
                frames[place] = bytes(found) if must_be_copied else found
        if [len(frame) for frame in frames] != self.sizes:
            self._refuse(frames)
        inputs = Inputs(self.layout, frames, area)
        if self._has_bools:
            # Made now, because this looks at their bytes.
            _ = inputs.arrays
        return inputs

    def _refuse(self, frames: Sequence[Any]) -> Never:
        wrong = next(at for at, size in enumerate(self.sizes) if len(frames[at]) != size)
        spec = self.layout.specs[wrong]
        where = "its frame" if spec.place is Place.FRAME else "its place in an arena"
        raise Malformed(
            f"tensor {spec.name!a}: {where} has {len(frames[wrong])} bytes, "
            f"{spec.dtype} of shape {list(spec.shape)} needs {self.sizes[wrong]}"
        )


def _must_be_copied(spec: TensorSpec, *, copies_inputs: bool) -> bool:
    if spec.dtype is Dtype.BOOL:
        # Looked at here, before a runtime has them.
        return True
    return not (copies_inputs or (spec.dtype in FLOATS and payload_bytes(spec) >= MIN_IN_PLACE_BYTES))


def _area(frame: Any, arenas: Arenas | None) -> Area:
    ref = decode_ref(frame)
    return Area(_find(ref, arenas), ref.offset, ref.size_bytes)


def _find(ref: ArenaRef, arenas: Arenas | None) -> Arena:
    if arenas is None:
        raise ArenaUnknown("the worker has no shared memory of clients")
    return arenas.find(ref)
