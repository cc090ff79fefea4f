"""What an ONNX file says of its inputs and outputs that ONNX Runtime does not pass on: whether they have a shape.

One without dimensions is that of a scalar, none at all is any shape, and the session says `[]` for both.

Only the fields on the way there are read, by their numbers in onnx.proto; weights are stepped over.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MODEL_GRAPH = 7
_GRAPH_INPUT = 11
_GRAPH_OUTPUT = 12
_VALUE_NAME = 1
_VALUE_TYPE = 2
_TYPE_TENSOR = 1
_TENSOR_SHAPE = 2

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10

Span = tuple[int, int]
"""Where the bytes of a field start and end."""


def shaped_names(path: str) -> frozenset[str]:
    """The inputs and outputs of which the file says how many dimensions they have.

    Raises:
        OSError, ValueError: the file cannot be read, or is not of this format.
    """
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = set()
        for graph in _fields(data, (0, len(data)), _MODEL_GRAPH):
            for number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                for value in _fields(data, graph, number):
                    if _has_shape(data, value):
                        found |= {data[start:end].decode() for start, end in _fields(data, value, _VALUE_NAME)}
        return frozenset(found)


def _has_shape(data: Any, value: Span) -> bool:
    return any(
        True
        for kind in _fields(data, value, _VALUE_TYPE)
        for tensor in _fields(data, kind, _TYPE_TENSOR)
        for _ in _fields(data, tensor, _TENSOR_SHAPE)
    )


def _fields(data: Any, span: Span, wanted: int) -> Iterator[Span]:
    """The fields of a message with this number, all of which are strings or messages."""
    at, end = span
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in {_FIXED64, _FIXED32}:
            at += 8 if kind == _FIXED64 else 4
        elif kind == _BYTES:
            size, at = _varint(data, at, end)
            if size > end - at:
                raise ValueError("a field is longer than what it is in")
            if tag >> 3 == wanted:
                yield at, at + size
            at += size
        else:
            raise ValueError(f"fields of kind {kind} are not known")
    if at != end:
        raise ValueError("the last field is longer than what it is in")


def _varint(data: Any, at: int, end: int) -> tuple[int, int]:
    """The number that starts there, and where the next field does."""
    value = 0
    for place in range(min(_MAX_VARINT_BYTES, end - at)):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number has no end")
