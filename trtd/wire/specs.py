"""Tensors inside headers: the specs `[name, dtype, shape, place]` under `inputs` and `outputs`, and bare names."""

from __future__ import annotations

from typing import Any

from trtd.errors import Malformed, TrtdError, UnsupportedDtype
from trtd.wire import headers
from trtd.wire.messages import ITEM_BYTES, MAX_DIMS, MAX_TENSORS, Dtype, Place, TensorSpec

MAX_TENSOR_BYTES = 2**40
"""Most bytes that a shape may stand for, zeros in it left out of the product, so that no language overflows."""

DTYPES: dict[str, Dtype] = {dtype.value: dtype for dtype in Dtype}

_STRING_DTYPES = frozenset({"string", "str", "object"})
_PLACES: dict[str, Place] = {place.value: place for place in Place}
_SPEC_ITEMS = 4


def encode_specs(specs: tuple[TensorSpec, ...]) -> list[tuple[Any, ...]]:
    """What stands under `inputs` or `outputs`."""
    return [(spec.name, spec.dtype, spec.shape, spec.place) for spec in specs]


def decode_specs(fields: headers.Fields, key: str) -> tuple[TensorSpec, ...]:
    """The tensors that a header names under `key`.

    Raises:
        Malformed: a name, shape or place breaks the rules; the line names the tensor.
        UnsupportedDtype: a dtype does not travel.
    """
    entries = headers.array(fields, key)
    if len(entries) > MAX_TENSORS:
        raise Malformed(f"{key}: has {len(entries)} tensors, the most is {MAX_TENSORS}")
    specs: list[TensorSpec] = []
    for entry in entries:
        if type(entry) is not tuple or len(entry) != _SPEC_ITEMS:
            raise _wrong_entry(entry, f"{key}[{len(specs)}]")
        name, dtype_name, shape, place = entry
        headers.check_name(name, f"{key}[{len(specs)}]")
        dtype = DTYPES.get(dtype_name) if type(dtype_name) is str else None
        if dtype is None:
            raise wrong_dtype(dtype_name, f"{key} {headers.show(name)}")
        if type(shape) is not tuple or len(shape) > MAX_DIMS:
            raise _wrong_shape(shape, f"{key} {headers.show(name)}")
        size = ITEM_BYTES[dtype]
        for dim in shape:
            if type(dim) is not int or dim < 0:
                raise _wrong_shape(shape, f"{key} {headers.show(name)}")
            size *= dim or 1
        if size > MAX_TENSOR_BYTES:
            raise _wrong_shape(shape, f"{key} {headers.show(name)}")
        known_place = _PLACES.get(place) if type(place) is str else None
        if known_place is None:
            raise _wrong_place(place, f"{key} {headers.show(name)}")
        specs.append(TensorSpec(name, dtype, shape, known_place))
    if len(specs) > 1 and len({spec.name for spec in specs}) != len(specs):
        raise Malformed(f"{key}: two tensors have the same name")
    return tuple(specs)


def decode_names(fields: headers.Fields, key: str) -> tuple[str, ...]:
    """The names of tensors under `key`, at least one.

    Raises:
        Malformed: there are none or too many, one breaks the rules, or two are the same.
    """
    names = headers.array(fields, key)
    if not 0 < len(names) <= MAX_TENSORS:
        raise Malformed(f"{key}: has {len(names)} names, expected 1 to {MAX_TENSORS}")
    for place, name in enumerate(names):
        headers.check_name(name, f"{key}[{place}]")
    if len(set(names)) != len(names):
        raise Malformed(f"{key}: names a tensor twice")
    return names


def wrong_dtype(dtype: object, where: str) -> TrtdError:
    """The error for a dtype that does not travel."""
    if not isinstance(dtype, str):
        return Malformed(f"{where} dtype: expected a string, got {headers.type_name(dtype)}")
    if dtype in _STRING_DTYPES:
        return UnsupportedDtype(f"{where} dtype: {dtype} tensors do not travel; send numbers instead")
    return UnsupportedDtype(f"{where} dtype: {headers.show(dtype)} is none of {', '.join(DTYPES)}")


def _wrong_entry(entry: object, where: str) -> Malformed:
    got = f"an array of {len(entry)}" if isinstance(entry, tuple) else headers.type_name(entry)
    return Malformed(f"{where}: expected [name, dtype, shape, place], got {got}")


def _wrong_shape(shape: object, where: str) -> Malformed:
    if not isinstance(shape, tuple):
        return Malformed(f"{where} shape: expected an array of integers, got {headers.type_name(shape)}")
    if len(shape) > MAX_DIMS:
        return Malformed(f"{where} shape: has {len(shape)} dimensions, the most is {MAX_DIMS}")
    for dim in shape:
        if type(dim) is not int:
            return Malformed(f"{where} shape: expected integers, got {headers.type_name(dim)}")
        if dim < 0:
            return Malformed(f"{where} shape: {dim} is negative")
    return Malformed(f"{where} shape: {list(shape)} stands for more than {MAX_TENSOR_BYTES} bytes")


def _wrong_place(place: object, where: str) -> Malformed:
    got = headers.show(place) if isinstance(place, str) else headers.type_name(place)
    return Malformed(f"{where} place: expected 'frame' or 'arena', got {got}")
