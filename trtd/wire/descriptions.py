"""Models as frames describe them: an array with one map per model, in answers to clients and in a worker's attach."""

from __future__ import annotations

from typing import Any

from msgpack import packb

from trtd.errors import Malformed, TooLarge
from trtd.wire import headers
from trtd.wire.messages import ModelDescription, TensorContract, Unserved
from trtd.wire.specs import DTYPES, wrong_dtype

MAX_MODELS = 1024
MAX_MODELS_BYTES = 128 * 1024
"""Most bytes of the frame that describes a tenant's models."""

_CONTRACT_ITEMS = 3
_UNSERVED_ITEMS = 2


def encode_models(models: tuple[ModelDescription, ...]) -> bytes:
    """The frame that describes models.

    Raises:
        TooLarge: the descriptions break the frame's limit.
    """
    data: bytes = packb(models_to_plain(models))
    if len(data) > MAX_MODELS_BYTES or len(models) > MAX_MODELS:
        raise TooLarge(
            f"the descriptions of {len(models)} models need {len(data)} bytes, "
            f"the most is {MAX_MODELS} models and {MAX_MODELS_BYTES} bytes"
        )
    return data


def decode_models(data: bytes | memoryview) -> tuple[ModelDescription, ...]:
    """The models that a frame describes.

    Raises:
        Malformed: it does not follow the protocol.
        UnsupportedDtype: a model has a dtype that this side does not know.
    """
    return models_from_plain(headers.unpack(data, "the frame of models", MAX_MODELS_BYTES, MAX_MODELS))


def models_to_plain(models: tuple[ModelDescription, ...]) -> list[headers.Fields]:
    """Models as plain values for msgpack."""
    return list(map(_model_to_plain, models))


def models_from_plain(values: object) -> tuple[ModelDescription, ...]:
    """Models from the plain values of msgpack; keys that are unknown here are ignored."""
    if type(values) is not tuple:
        raise Malformed(f"models: expected an array, got {headers.type_name(values)}")
    return tuple(map(_model_from_plain, values))


def _model_to_plain(model: ModelDescription) -> headers.Fields:
    fields: headers.Fields = {
        "name": model.name,
        "version": model.version,
        "inputs": _contracts_to_plain(model.inputs),
        "outputs": _contracts_to_plain(model.outputs),
        "is_batched": model.is_batched,
        "max_batch": model.max_batch,
        "batching": headers.one_line(model.batching),
    }
    if model.optional_inputs:
        fields["optional_inputs"] = _contracts_to_plain(model.optional_inputs)
    if model.unserved:
        fields["unserved"] = [(one.name, one.reason) for one in model.unserved]
    return fields


def _model_from_plain(fields: object) -> ModelDescription:
    if type(fields) is not dict:
        raise Malformed(f"models: expected a map for each, got {headers.type_name(fields)}")
    return ModelDescription(
        name=headers.name(fields, "name"),
        version=headers.name(fields, "version"),
        inputs=_contracts_from_plain(fields, "inputs"),
        outputs=_contracts_from_plain(fields, "outputs"),
        is_batched=headers.boolean(fields, "is_batched"),
        max_batch=headers.uint(fields, "max_batch"),
        batching=headers.text(fields, "batching"),
        optional_inputs=_contracts_from_plain(fields, "optional_inputs") if "optional_inputs" in fields else (),
        unserved=_unserved_from_plain(fields) if "unserved" in fields else (),
    )


def _contracts_to_plain(contracts: tuple[TensorContract, ...]) -> list[tuple[Any, ...]]:
    return [(contract.name, contract.dtype, contract.shape) for contract in contracts]


def _contracts_from_plain(fields: headers.Fields, key: str) -> tuple[TensorContract, ...]:
    contracts: list[TensorContract] = []
    for entry in headers.array(fields, key):
        if type(entry) is not tuple or len(entry) != _CONTRACT_ITEMS:
            raise Malformed(f"{key}[{len(contracts)}]: expected [name, dtype, shape]")
        name = headers.check_name(entry[0], f"{key}[{len(contracts)}]")
        dtype = DTYPES.get(entry[1]) if type(entry[1]) is str else None
        if dtype is None:
            raise wrong_dtype(entry[1], f"{key} {headers.show(name)}")
        shape = entry[2]
        if shape is not None and (type(shape) is not tuple or not all(map(_is_dim, shape))):
            raise Malformed(f"{key} {headers.show(name)} shape: expected nil or an array of integers and nil")
        contracts.append(TensorContract(name, dtype, shape))
    return tuple(contracts)


def _unserved_from_plain(fields: headers.Fields) -> tuple[Unserved, ...]:
    unserved: list[Unserved] = []
    for entry in headers.array(fields, "unserved"):
        if type(entry) is not tuple or len(entry) != _UNSERVED_ITEMS:
            raise Malformed(f"unserved[{len(unserved)}]: expected [name, reason]")
        name = headers.check_name(entry[0], f"unserved[{len(unserved)}]")
        unserved.append(Unserved(name, headers.text({"reason": entry[1]}, "reason")))
    return tuple(unserved)


def _is_dim(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value <= headers.MAX_UINT)
