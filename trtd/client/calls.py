"""Calls as messages: ids, arguments checked, headers that are encoded once for all calls of the same form. No I/O."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from dataclasses import replace

from trtd.client.values import Tensor
from trtd.core.ids import REQUEST_ID_BYTES, RequestId
from trtd.errors import InvalidInput, UnsupportedDtype
from trtd.wire import codec, tensors
from trtd.wire.messages import MAX_TENSORS, UNKNOWN_REQUEST_ID, ClientMessage, InferRequest

_COUNTER_BYTES = 8
_MOST_FORMS = 256
_MARK = RequestId(b"\xff" * REQUEST_ID_BYTES)
"""Stands for the id while a header is encoded; no UTF-8 text has these bytes."""


class RequestIds:
    """Ids that no other client chooses: a random half for the client and a counter."""

    def __init__(self) -> None:
        self._prefix = os.urandom(REQUEST_ID_BYTES - _COUNTER_BYTES)
        self._count = 0

    def next(self) -> RequestId:
        """A new id."""
        self._count += 1
        return RequestId(self._prefix + self._count.to_bytes(_COUNTER_BYTES, "big"))


def check_call(timeout_s: float, priority: int = 0) -> None:
    """Refuse arguments that no request can have.

    Raises:
        ValueError: the timeout is not above 0 and finite, or the priority is out of range.
    """
    if not 0 < timeout_s < float("inf"):
        raise ValueError(f"timeout has to be a finite number of seconds above 0, not {timeout_s}")
    if not codec.MIN_PRIORITY <= priority <= codec.MAX_PRIORITY:
        raise ValueError(f"priority has to be from {codec.MIN_PRIORITY} to {codec.MAX_PRIORITY}, not {priority}")


class Form:
    """All that calls have in common which differ in their ids and the bytes of their tensors only."""

    __slots__ = ("_after_id", "_before_id", "_message")

    def __init__(self, message: ClientMessage) -> None:
        """Take a message with any id.

        Raises:
            trtd.errors.TooLarge: the header would break its limit.
        """
        self._message = message
        self._before_id, self._after_id = codec.encode_client_message(replace(message, id=_MARK)).split(_MARK)

    def header(self, request_id: RequestId) -> bytes:
        """The header of the call with this id."""
        return self._before_id + request_id + self._after_id

    def message(self, request_id: RequestId) -> ClientMessage:
        """The message of the call with this id."""
        return replace(self._message, id=request_id)


class Forms:
    """The forms of a client's `infer` calls. A caller that repeats itself pays for checking and encoding once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Hashable, ...], Form] = {}

    def infer(
        self, model: str, inputs: Mapping[str, Tensor], version: str | None, timeout_s: float, priority: int
    ) -> tuple[Form, list[memoryview]]:
        """The form of one `infer` call, and its tensor frames.

        Raises:
            trtd.errors.UnsupportedDtype: an input is no array, or of a dtype that does not travel.
            trtd.errors.InvalidInput: there are too many inputs.
            trtd.errors.TooLarge: names are so long that the header breaks its limit.
        """
        key: list[Hashable] = [model, version, timeout_s, priority]
        frames = []
        name = ""
        try:
            for name, tensor in inputs.items():
                frames.append(tensors.to_frame(tensor))
                key += (name, getattr(tensor, "dtype", None), tensor.shape)
        except AttributeError:
            raise UnsupportedDtype(
                f"input {name!r} is a {type(inputs[name]).__name__}; pass a NumPy array or a BFloat16"
            ) from None
        except UnsupportedDtype as error:
            raise UnsupportedDtype(f"input {name!r}: {error.message}") from None
        form = self._known.get(tuple(key))
        if form is None:
            form = self._new_form(model, inputs, version, timeout_s, priority)
            if len(self._known) >= _MOST_FORMS:
                self._known.clear()
            self._known[tuple(key)] = form
        return form, frames

    def _new_form(
        self, model: str, inputs: Mapping[str, Tensor], version: str | None, timeout_s: float, priority: int
    ) -> Form:
        if len(inputs) > MAX_TENSORS:
            raise InvalidInput(f"a request has at most {MAX_TENSORS} inputs, not {len(inputs)}")
        specs = tuple(tensors.spec_of(name, tensor) for name, tensor in inputs.items())
        return Form(InferRequest(UNKNOWN_REQUEST_ID, model, version, specs, timeout_s, priority))
