"""Calls as messages: ids, arguments checked, headers that are encoded once for all calls of the same form. No I/O."""

from __future__ import annotations

import itertools
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trtd.client.arguments import inputs_of, name_of, version_of, wanted_of
from trtd.client.regions import aligned
from trtd.core.ids import REQUEST_ID_BYTES, RequestId
from trtd.errors import UnsupportedDtype
from trtd.wire import codec, packing, tensors
from trtd.wire.arenas import REF_BYTES
from trtd.wire.frames import payload_bytes, travelling_bytes
from trtd.wire.messages import UNKNOWN_REQUEST_ID, ClientMessage, Dtype, InferRequest, Place, TensorSpec

SHARED_FROM_BYTES = 128 * 1024
"""Tensors from this size on travel through shared memory where it can be had.

Measured with an echo through the whole daemon, one caller, input and output alike, two busy cores, median of nine
alternations: time by shared memory over time by frames is 1.17 at 16 KiB, 1.08 at 64, 0.99 at 128, 0.74 at 256, 0.57 at
600.
"""
PLACED_FROM_BYTES = 16 * 1024
"""Workers write outputs from this size on into an area; smaller ones always come in frames."""
COPIED_BELOW_BYTES = 16 * 1024
"""Smaller inputs are copied when the call is made, which costs less than to keep a view of them."""

_AS_THEY_ARE = frozenset(tensors.to_numpy(dtype) for dtype in Dtype)
"""Dtypes whose bytes travel as they lie in memory."""
_COUNTER_BYTES = 8
_MOST_FORMS = 256
_MARK = RequestId(b"\xff" * REQUEST_ID_BYTES)
"""Stands for the id while a header is encoded; no UTF-8 text has these bytes."""


class RequestIds:
    """Ids that no other client chooses: a random half for the client and a counter."""

    def __init__(self) -> None:
        self._prefix = os.urandom(REQUEST_ID_BYTES - _COUNTER_BYTES)
        # One step of the interpreter, so that no two threads get the same number.
        self._next = itertools.count(1).__next__

    def next(self) -> RequestId:
        """A new id. Safe in any thread."""
        # To call a NewType costs as much as all the rest.
        return self._prefix + self._next().to_bytes(_COUNTER_BYTES, "big")  # type: ignore[return-value]


class Outputs:
    """What answers have told of the outputs of one model for inputs of one kind, whoever asks, however urgently.

    Attributes:
        area_bytes: what they needed in shared memory; 0 for nothing.
    """

    __slots__ = ("_learned_of", "area_bytes")

    def __init__(self) -> None:
        self.area_bytes = 0
        self._learned_of: Sequence[TensorSpec] = ()

    def learn(self, outputs: tuple[TensorSpec, ...]) -> None:
        """An answer has these outputs: later calls get an area in which such outputs fit."""
        if outputs is self._learned_of:
            return
        self._learned_of = outputs
        sizes = [aligned(size) for size in map(payload_bytes, outputs) if size >= PLACED_FROM_BYTES]
        needed = sum(sizes)
        if needed >= SHARED_FROM_BYTES:
            self.area_bytes = max(self.area_bytes, needed)


class Form:
    """All that calls have in common which differ in their ids and the bytes of their tensors only.

    Attributes:
        large: positions of the inputs that are large enough for shared memory.
        packed_bytes: of the call as a part of a bundle.
        outputs: what is known of the outputs; other forms may have the same.
    """

    __slots__ = (
        "_after_id",
        "_before_id",
        "_has_padding",
        "_message",
        "_packed_after_id",
        "_packed_before_id",
        "_paddings",
        "_placed",
        "large",
        "outputs",
        "packed_bytes",
    )

    def __init__(self, message: ClientMessage, outputs: Outputs | None = None) -> None:
        """Take a message with any id, and what is known of the outputs.

        Raises:
            trtd.errors.TooLarge: the header would break its limit.
        """
        self._message = message
        self._before_id, self._after_id = codec.encode_client_message(replace(message, id=_MARK)).split(_MARK)
        self._placed: dict[tuple[tuple[int, ...], bool], Form] = {}
        self.outputs = outputs or Outputs()
        inputs = message.inputs if isinstance(message, InferRequest) else ()
        large = [position for position, spec in enumerate(inputs) if payload_bytes(spec) >= SHARED_FROM_BYTES]
        self.large = tuple(large)
        sizes = [len(self._before_id) + REQUEST_ID_BYTES + len(self._after_id), *map(travelling_bytes, inputs)]
        if isinstance(message, InferRequest) and message.has_area:
            sizes.append(REF_BYTES)
        start, (padding, *self._paddings), self.packed_bytes = packing.lay_out(tuple(sizes))
        self._has_padding = any(self._paddings)
        self._packed_before_id = start + self._before_id
        self._packed_after_id = self._after_id + padding

    def header(self, request_id: RequestId) -> bytes:
        """The header of the call with this id."""
        return self._before_id + request_id + self._after_id

    def pack(self, request_id: RequestId, frames: Sequence[Any], parts: list[Any]) -> None:
        """Append the call with this id and these tensor frames to a bundle, packed as `trtd.wire.packing` does it."""
        parts += (self._packed_before_id, request_id, self._packed_after_id)
        if self._has_padding:
            for frame, padding in zip(frames, self._paddings, strict=True):
                parts += (frame, padding)
        else:
            parts += frames

    def message(self, request_id: RequestId) -> ClientMessage:
        """The message of the call with this id."""
        return replace(self._message, id=request_id)

    def placed(self, positions: tuple[int, ...], *, has_area: bool) -> Form:
        """The same call with the inputs at these positions in arenas, and with an area for the outputs.

        Raises:
            trtd.errors.TooLarge: the header would break its limit.
        """
        form = self._placed.get((positions, has_area))
        if form is None:
            message = self._message
            assert isinstance(message, InferRequest)  # noqa: S101  # others have no tensors to be placed
            inputs = tuple(
                replace(spec, place=Place.ARENA) if position in positions else spec
                for position, spec in enumerate(message.inputs)
            )
            form = Form(replace(message, inputs=inputs, has_area=has_area), self.outputs)
            self._placed[positions, has_area] = form
        return form


class Forms:
    """The forms of a client's `infer` calls. A caller that repeats itself pays for checking and encoding once."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Form] = {}
        self._outputs: dict[Hashable, Outputs] = {}

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        version: str | None,
        timeout_s: float,
        priority: int,
        wanted: Sequence[str] | None = None,
    ) -> tuple[Form, list[Any]]:
        """The form of one `infer` call, and its tensor frames.

        Args:
            model: as the caller gave it.
            inputs: as the caller gave them: a mapping of names to what can be read as an array.
            version: as the caller gave it.
            timeout_s: a timeout that was checked.
            priority: a priority that was checked.
            wanted: names of outputs, as the caller gave them.

        Raises:
            trtd.errors.UnsupportedDtype: an input is of a dtype that does not travel.
            trtd.errors.InvalidInput: an input or its name cannot be sent, there are too many, or the outputs are not
                names that differ.
            trtd.errors.TooLarge: names are so long that the header breaks its limit.
            trtd.errors.Usage: the model or the version has to be a string.
        """
        outputs = None if wanted is None else wanted_of(wanted)
        try:
            return self._infer(model, inputs, version, timeout_s, priority, outputs)
        except (TypeError, AttributeError):
            # Something is not of the kind that most callers pass.
            model, version = name_of(model, "model"), version_of(version)
            return self._infer(model, inputs_of(inputs), version, timeout_s, priority, outputs)

    def _infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        version: str | None,
        timeout_s: float,
        priority: int,
        wanted: tuple[str, ...] | None,
    ) -> tuple[Form, list[Any]]:
        # Outputs depend on this, and on neither the timeout nor the priority.
        what: Hashable = (model, version, wanted)
        frames: list[Any] = []
        name = ""
        try:
            for name, tensor in inputs.items():
                if type(tensor) is np.ndarray:
                    dtype = tensor.dtype
                    is_copied = tensor.nbytes < COPIED_BELOW_BYTES and dtype in _AS_THEY_ARE
                    frames.append(tensor.tobytes() if is_copied else tensors.to_frame(tensor))
                elif isinstance(tensor, tensors.Bits):
                    dtype = tensors.spec_of(name, tensor).dtype
                    frames.append(tensors.to_frame(tensor))
                else:
                    return self._infer(model, inputs_of(inputs), version, timeout_s, priority, wanted)
                what = (what, name, dtype, tensor.shape)
        except UnsupportedDtype as error:
            raise UnsupportedDtype(f"input {name!r}: {error.message}") from None
        key = (what, timeout_s, priority)
        form = self._known.get(key)
        if form is None:
            names = name_of(model, "model"), version_of(version)
            specs = tuple(tensors.spec_of(name, tensor) for name, tensor in inputs_of(inputs).items())
            message = InferRequest(UNKNOWN_REQUEST_ID, *names, specs, timeout_s, priority, outputs=wanted)
            form = Form(message, self._known_of(what))
            _remember(self._known, key, form)
        return form, frames

    def _known_of(self, what: Hashable) -> Outputs:
        outputs = self._outputs.get(what)
        if outputs is None:
            outputs = Outputs()
            _remember(self._outputs, what, outputs)
        return outputs


def _remember(known: dict[Hashable, Any], key: Hashable, value: Any) -> None:
    if len(known) >= _MOST_FORMS:
        known.clear()
    known[key] = value
