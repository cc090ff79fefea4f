"""What an ONNX model says of itself, read from its own bytes without a protobuf library.

Which files it keeps weights in beside itself, and which inputs and outputs have a shape: one without dimensions is that
of a scalar, none at all is any shape, and ONNX Runtime says the same of both.

A model is a tree of length-prefixed fields, so a reader walks from tensor to tensor and steps over everything else,
weights that are inside among them. It reads at most `MAX_READ_BYTES` and looks at `MAX_FIELDS`, whatever the file says.
Left out is what a model says about its training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum

Read = Callable[[int, int], bytes]
"""Bytes from an offset on, so many at most; fewer only where the file ends."""

WINDOW_BYTES = 16 * 1024
MAX_READ_BYTES = 256 * 1024**2
MAX_FIELDS = 4_000_000
"""Some hundred thousand nodes with their names; a few seconds."""
MAX_TEXT_BYTES = 4096
"""Longest path that Linux takes (PATH_MAX)."""
LOCATION = b"location"


class Unreadable(Exception):
    """The bytes are no ONNX model, or more of one than this reader looks at."""


class TooMuch(Unreadable):
    """It may well be a model, and has more in it than this reader looks at."""


class Kind(Enum):
    """Messages on the way to a tensor's data, with the numbers of their fields that lead on (onnx.proto)."""

    MODEL = "ModelProto"
    GRAPH = "GraphProto"
    FUNCTION = "FunctionProto"
    NODE = "NodeProto"
    ATTRIBUTE = "AttributeProto"
    SPARSE = "SparseTensorProto"
    TENSOR = "TensorProto"


WAY: dict[Kind, dict[int, Kind]] = {
    Kind.MODEL: {7: Kind.GRAPH, 25: Kind.FUNCTION},
    Kind.GRAPH: {1: Kind.NODE, 5: Kind.TENSOR, 15: Kind.SPARSE},
    Kind.FUNCTION: {7: Kind.NODE},
    Kind.NODE: {5: Kind.ATTRIBUTE},
    Kind.ATTRIBUTE: {
        5: Kind.TENSOR, 6: Kind.GRAPH, 10: Kind.TENSOR, 11: Kind.GRAPH, 22: Kind.SPARSE, 23: Kind.SPARSE,
    },
    Kind.SPARSE: {1: Kind.TENSOR, 2: Kind.TENSOR},
    Kind.TENSOR: {},
}  # fmt: skip
EXTERNAL_DATA = 13
"""Field of TensorProto with one (key, value) for each thing that is said about data in another file."""

MODEL_GRAPH = 7
GRAPH_INPUT, GRAPH_OUTPUT = 11, 12
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR = 1
TENSOR_SHAPE = 2
"""Fields of the messages on the way from ModelProto to the TensorShapeProto of an input."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def external_locations(read: Read, size: int) -> tuple[str, ...]:
    """Paths of other files in which the model keeps data, as it says them: relative to its own directory, sorted.

    Args:
        read: reads the model.
        size: bytes of the model.

    Raises:
        Unreadable: the bytes are no such model, or too many.
    """
    fields = _Fields(read)
    found: set[bytes] = set()
    left = [(Kind.MODEL, 0, size)]
    while left:
        kind, start, end = left.pop()
        way = WAY[kind]
        for number, begin, stop in fields.messages(start, end):
            if number in way:
                left.append((way[number], begin, stop))
            elif kind is Kind.TENSOR and number == EXTERNAL_DATA:
                entry = {key: fields.text(*place) for key, *place in fields.messages(begin, stop)}
                if entry.get(1) == LOCATION:
                    found.add(entry.get(2, b""))
    return tuple(sorted(location.decode("utf-8", "surrogateescape") for location in found if location))


def check_model(read: Read, size: int) -> None:
    """Make sure that this can be a model: it is made of such fields, and has a graph.

    Args:
        read: reads the model.
        size: bytes of the model.

    Raises:
        Unreadable: the bytes are no such model, or too many.
    """
    if not any(number == MODEL_GRAPH for number, _, _ in _Fields(read).messages(0, size)):
        raise Unreadable("it has no graph")


def shaped_names(read: Read, size: int) -> frozenset[str]:
    """The inputs and outputs of which the model says how many dimensions they have.

    Args:
        read: reads the model.
        size: bytes of the model.

    Raises:
        Unreadable: the bytes are no such model, or too many.
    """
    fields = _Fields(read)

    def below(places: Iterable[tuple[int, int]], *numbers: int) -> list[tuple[int, int]]:
        return [place for start, end in places for number, *place in fields.messages(start, end) if number in numbers]  # type: ignore[misc]  # two of them

    found = set()
    for value in below(below([(0, size)], MODEL_GRAPH), GRAPH_INPUT, GRAPH_OUTPUT):
        if below(below(below([value], VALUE_TYPE), TYPE_TENSOR), TENSOR_SHAPE):
            found |= {fields.text(*name).decode("utf-8", "surrogateescape") for name in below([value], VALUE_NAME)}
    return frozenset(found)


class _Fields:
    """The fields of a protobuf message, by a window on the bytes that moves on."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._window = b""
        self._at = 0
        self._bytes_read = 0
        self._seen = 0

    def messages(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number, begin and end of each field with a length in this part of the bytes."""
        at = start
        while at < end:
            self._seen += 1
            if self._seen > MAX_FIELDS:
                raise TooMuch(f"it has more than {MAX_FIELDS} fields")
            tag, at = self._varint(at)
            kind = tag & 7
            if kind == LENGTH:
                length, at = self._varint(at)
                if at + length > end:
                    raise Unreadable(f"a field at {at} is longer than what holds it")
                yield tag >> 3, at, at + length
                at += length
            elif kind == VARINT:
                _, at = self._varint(at)
            elif kind in (FIXED32, FIXED64):
                at += 4 if kind == FIXED32 else 8
            else:
                raise Unreadable(f"a field at {at} is of no known kind")

    def text(self, begin: int, end: int) -> bytes:
        """The bytes of a short text."""
        if end - begin > MAX_TEXT_BYTES:
            raise Unreadable(f"a text at {begin} has {end - begin} bytes")
        return self._bytes(begin, end - begin)

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        for byte in self._bytes(at, 10):
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise Unreadable(f"a number at {at} does not end")

    def _bytes(self, at: int, count: int) -> bytes:
        """So many bytes, fewer only at the end of the file."""
        begin = at - self._at
        if begin < 0 or begin + count > len(self._window):
            if self._bytes_read > MAX_READ_BYTES:
                raise TooMuch(f"it takes more than {MAX_READ_BYTES} bytes to look through")
            self._window = self._read(at, WINDOW_BYTES)
            self._bytes_read += len(self._window)
            self._at, begin = at, 0
        return self._window[begin : begin + count]
