"""Tensor specs and model descriptions inside headers: `[name, dtype, shape, place]` and one map per model."""

from __future__ import annotations

from typing import Any, Never

from msgpack import packb

from trtd.errors import Malformed, TooLarge, UnsupportedDtype
from trtd.wire import headers
from trtd.wire.messages import (
    ITEM_BYTES,
    MAX_DIMS,
    MAX_TENSORS,
    Dtype,
    ModelDescription,
    Place,
    TensorContract,
    TensorSpec,
)

MAX_TENSOR_BYTES = 2**40
"""Most bytes that a shape may stand for, zeros in it left out of the product, so that no language overflows."""
MAX_MODELS = 1024
MAX_MODELS_BYTES = 128 * 1024
"""Most bytes of the frame that describes a tenant's models."""

_DTYPES = {dtype.value: dtype for dtype in Dtype}
_FRAME = Place.FRAME.value
_STRING_DTYPES = frozenset({"string", "str", "object"})


def encode_specs(specs: tuple[TensorSpec, ...]) -> list[tuple[Any, ...]]:
    """What stands under `inputs` or `outputs`."""
    return [(spec.name, spec.dtype.value, spec.shape, spec.place.value) for spec in specs]


def decode_specs(fields: headers.Fields, key: str) -> tuple[TensorSpec, ...]:
    """What `inputs` or `outputs` name.

    Raises:
        Malformed: a name, shape or place breaks the rules; the line names the tensor.
        UnsupportedDtype: a dtype does not travel.
    """
    entries = headers.array(fields, key, MAX_TENSORS)
    specs = []
    for entry in entries:
        if type(entry) is not tuple or len(entry) != 4:
            _refuse_entry(key, len(specs), entry)
        name, dtype_name, shape, place = entry
        if not headers.is_name(name):
            headers.check_name(name, f"{key}[{len(specs)}] name")
        dtype = _DTYPES.get(dtype_name) if type(dtype_name) is str else None
        if dtype is None:
            refuse_dtype(dtype_name, f"{key} {headers.show(name)}")
        if type(shape) is not tuple or len(shape) > MAX_DIMS:
            _refuse_shape(shape, f"{key} {headers.show(name)}")
        size = ITEM_BYTES[dtype]
        for dim in shape:
            if type(dim) is not int or dim < 0:
                _refuse_shape(shape, f"{key} {headers.show(name)}")
            size *= dim or 1
        if size > MAX_TENSOR_BYTES:
            _refuse_shape(shape, f"{key} {headers.show(name)}")
        if place != _FRAME:
            _refuse_place(place, f"{key} {headers.show(name)}")
        specs.append(TensorSpec(name, dtype, shape))
    if len(specs) > 1 and len({spec.name for spec in specs}) != len(specs):
        raise Malformed(f"{key}: two tensors have the same name")
    return tuple(specs)


def _refuse_entry(key: str, index: int, entry: object) -> Never:
    got = f"an array of {len(entry)}" if isinstance(entry, tuple) else headers.type_name(entry)
    raise Malformed(f"{key}[{index}]: expected [name, dtype, shape, place], got {got}")


def refuse_dtype(dtype: object, where: str) -> Never:
    """Say why a dtype is refused."""
    if not isinstance(dtype, str):
        raise Malformed(f"{where} dtype: expected a string, got {headers.type_name(dtype)}")
    if dtype in _STRING_DTYPES:
        raise UnsupportedDtype(f"{where} dtype: {dtype} tensors do not travel; encode them as numbers")
    raise UnsupportedDtype(f"{where} dtype: {headers.show(dtype)} is none of {', '.join(_DTYPES)}")


def _refuse_shape(shape: object, where: str) -> Never:
    if not isinstance(shape, tuple):
        raise Malformed(f"{where} shape: expected an array of integers, got {headers.type_name(shape)}")
    if len(shape) > MAX_DIMS:
        raise Malformed(f"{where} shape: has {len(shape)} dimensions, the most is {MAX_DIMS}")
    for dim in shape:
        if type(dim) is not int:
            raise Malformed(f"{where} shape: expected integers, got {headers.type_name(dim)}")
        if dim < 0:
            raise Malformed(f"{where} shape: {dim} is negative")
    raise Malformed(f"{where} shape: {list(shape)} stands for more than 2**40 bytes")


def _refuse_place(place: object, where: str) -> Never:
    got = headers.show(place) if isinstance(place, str) else headers.type_name(place)
    raise Malformed(f"{where} place: expected 'frame', the only place that this daemon knows, got {got}")


def encode_models(models: tuple[ModelDescription, ...]) -> bytes:
    """The frame that describes models: an array of one map each.

    Raises:
        TooLarge: the descriptions break the frame's limit.
    """
    data: bytes = packb(model_fields(models))
    if len(data) > MAX_MODELS_BYTES or len(models) > MAX_MODELS:
        raise TooLarge(
            f"the descriptions of {len(models)} models need {len(data)} bytes, the most is {MAX_MODELS_BYTES}"
        )
    return data


def decode_models(data: bytes | memoryview) -> tuple[ModelDescription, ...]:
    """The models that a frame describes.

    Raises:
        Malformed: it does not follow the protocol.
        UnsupportedDtype: a model has a dtype that this side does not know.
    """
    return models_from_fields(headers.unpack(data, "the frame of models", MAX_MODELS_BYTES, MAX_MODELS))


def model_fields(models: tuple[ModelDescription, ...]) -> list[headers.Fields]:
    """Models as plain values for msgpack."""
    return [
        {
            "name": model.name,
            "version": model.version,
            "inputs": _encode_contracts(model.inputs),
            "outputs": _encode_contracts(model.outputs),
            "is_batched": model.is_batched,
            "max_batch": model.max_batch,
        }
        for model in models
    ]


def models_from_fields(values: object) -> tuple[ModelDescription, ...]:
    """Models from the plain values of msgpack; keys that are unknown here are ignored."""
    if type(values) is not tuple:
        raise Malformed(f"models: expected an array, got {headers.type_name(values)}")
    return tuple(map(_decode_model, values))


def _decode_model(fields: object) -> ModelDescription:
    if type(fields) is not dict:
        raise Malformed(f"models: expected a map for each, got {headers.type_name(fields)}")
    return ModelDescription(
        name=headers.name(fields, "name"),
        version=headers.name(fields, "version"),
        inputs=_decode_contracts(fields, "inputs"),
        outputs=_decode_contracts(fields, "outputs"),
        is_batched=headers.boolean(fields, "is_batched"),
        max_batch=headers.uint(fields, "max_batch"),
    )


def _encode_contracts(contracts: tuple[TensorContract, ...]) -> list[tuple[Any, ...]]:
    return [(contract.name, contract.dtype.value, contract.shape) for contract in contracts]


def _decode_contracts(fields: headers.Fields, key: str) -> tuple[TensorContract, ...]:
    contracts = []
    for entry in headers.array(fields, key, headers.MAX_UINT):
        if type(entry) is not tuple or len(entry) != 3:
            raise Malformed(f"{key}[{len(contracts)}]: expected [name, dtype, shape]")
        name = headers.check_name(entry[0], f"{key}[{len(contracts)}] name")
        dtype = _DTYPES.get(entry[1]) if type(entry[1]) is str else None
        if dtype is None:
            refuse_dtype(entry[1], f"{key} {headers.show(name)}")
        shape = entry[2]
        if type(shape) is not tuple or not all(
            dim is None or (type(dim) is int and 0 <= dim <= headers.MAX_UINT) for dim in shape
        ):
            raise Malformed(f"{key} {headers.show(name)} shape: expected an array of integers and nil")
        contracts.append(TensorContract(name, dtype, shape))
    return tuple(contracts)
