"""What all headers share: unpacking within limits, and checks of single values with one clear line each.

Whatever the bytes are, reading raises `trtd.errors.Malformed` or `UnsupportedVersion` and nothing else. What a header
means is left to `trtd.wire.codec` and `trtd.wire.batches`.
"""

from __future__ import annotations

import math
import re
from typing import Any

from msgpack import ExtraData, packb, unpackb

from trtd.core.ids import REQUEST_ID_BYTES, RequestId
from trtd.core.texts import shorten_bytes
from trtd.errors import Malformed, TooLarge, TrtdError, UnsupportedVersion
from trtd.wire.messages import MAX_HEADER_BYTES, MAX_NAME_BYTES, WIRE_VERSION

MAX_TEXT_BYTES = 1024
"""Most bytes of a line meant for people, such as the message of an error."""
MAX_UINT = 2**63 - 1
"""Largest whole number in a header; it fits a signed 64-bit integer of any language."""

_MAX_ITEMS = 512
"""More than tensors may be, so that too many of them are told apart from what is no header at all."""
_MAX_PAIRS = 64
_WORST_UTF8_BYTES = 4
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_TYPE_NAMES = {
    bool: "a boolean",
    bytes: "binary",
    dict: "a map",
    float: "a float",
    int: "an integer",
    str: "a string",
    tuple: "an array",
    type(None): "nil",
}

Fields = dict[Any, Any]


def _refuse_ext(code: int, _data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not allowed")


def unpack(data: bytes | memoryview, what: str, max_bytes: int = MAX_HEADER_BYTES, max_items: int = _MAX_ITEMS) -> Any:
    """The one msgpack value that `data` holds, arrays as tuples; `what` names it in errors."""
    if len(data) > max_bytes:
        raise Malformed(f"{what} has {len(data)} bytes, the most is {max_bytes}")
    try:
        return unpackb(data, use_list=False, max_array_len=max_items, max_map_len=_MAX_PAIRS, ext_hook=_refuse_ext)
    except ExtraData:
        raise Malformed(f"{what} is followed by further bytes in its frame") from None
    except UnicodeDecodeError:
        raise Malformed(f"{what} holds a string that is not UTF-8") from None
    except ValueError as error:
        reason = str(error) or type(error).__name__
        raise Malformed(f"{what} is not valid msgpack within the limits: {reason}") from None


def unpack_header(data: bytes | memoryview) -> Fields:
    """The header's map. Its version is checked first, so that a stranger learns which versions are spoken."""
    fields: Fields = unpack(data, "the header")
    # The number of pairs that the map claims gives repeated keys away at no cost; no value of a header is a map.
    first = data[0]
    if first & 0xF0 == 0x80:
        pairs = first & 0x0F
    elif first == 0xDE:
        pairs = int.from_bytes(data[1:3], "big")
    elif first == 0xDF:
        pairs = int.from_bytes(data[1:5], "big")
    else:
        raise Malformed(f"the header is {type_name(fields)}, expected a map")
    if pairs != len(fields):
        raise Malformed("the header names a key twice")
    version = fields.get("v")
    if type(version) is not int or version != WIRE_VERSION:
        raise wrong_version(version)
    return fields


def pack_header(value: Any) -> bytes:
    """The bytes of a header.

    Raises:
        Malformed: a value has a type that does not travel.
        TooLarge: the header breaks its limit.
    """
    try:
        data: bytes = packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Malformed(f"the header cannot be written: {one_line(str(error))}") from None
    if len(data) > MAX_HEADER_BYTES:
        raise TooLarge(f"the header needs {len(data)} bytes, the most is {MAX_HEADER_BYTES}; shorten its names")
    return data


def type_name(value: object) -> str:
    """The type of an unpacked value, in words that do not depend on a language."""
    return _TYPE_NAMES.get(type(value), "of an unknown type")


def show(value: object) -> str:
    """A value for an error line, short whatever a stranger sent."""
    if isinstance(value, str | bytes):
        return ascii(value) if len(value) <= 40 else f"{value[:40]!a}..."
    return str(value) if type(value) in {int, float} else type_name(value)


def wrong(fields: Fields, key: str, expected: str) -> Malformed:
    """The error for a key whose value is missing or not as expected."""
    if key not in fields:
        return Malformed(f"{key}: missing, expected {expected}")
    value = fields[key]
    got = show(value) if type(value) in {int, float} else type_name(value)
    return Malformed(f"{key}: expected {expected}, got {got}")


def wrong_version(version: object) -> TrtdError:
    """The error for another version; it says which one is spoken here."""
    if type(version) is int:
        return UnsupportedVersion(f"v: this side speaks wire version {WIRE_VERSION}, the message has {version}")
    if version is None:
        return Malformed(f"v: missing; it names the wire version, {WIRE_VERSION} here")
    return Malformed(f"v: expected an integer, got {type_name(version)}")


def request_id(fields: Fields) -> RequestId:
    """The id of the request."""
    value = fields.get("id")
    if type(value) is not bytes:
        raise wrong(fields, "id", f"{REQUEST_ID_BYTES} bytes of binary")
    if len(value) != REQUEST_ID_BYTES:
        raise Malformed(f"id: expected {REQUEST_ID_BYTES} bytes of binary, got {len(value)}")
    return RequestId(value)


def name(fields: Fields, key: str) -> str:
    """The name under a key."""
    value = fields.get(key)
    if value is None:
        raise wrong(fields, key, "a string")
    return check_name(value, key)


def check_name(value: object, where: str) -> str:
    """A name of a model, a version, a tensor: 1 to 256 bytes of UTF-8, no control characters, no line breaks."""
    if type(value) is not str:
        raise Malformed(f"{where}: expected a string, got {type_name(value)}")
    if len(value) * _WORST_UTF8_BYTES <= MAX_NAME_BYTES and value.isprintable() and value:
        return value
    if not value:
        raise Malformed(f"{where}: is empty")
    # First, because surrogates have no bytes.
    if _CONTROL.search(value):
        raise Malformed(f"{where}: {show(value)} has a control character")
    if len(value.encode()) > MAX_NAME_BYTES:
        raise Malformed(f"{where}: is longer than {MAX_NAME_BYTES} bytes of UTF-8")
    return value


def text(fields: Fields, key: str) -> str:
    """The line for people under a key: it may be empty, has at most 1024 bytes and no control characters."""
    value = fields.get(key)
    if type(value) is not str:
        raise wrong(fields, key, "a string")
    if not value.isprintable() and _CONTROL.search(value):
        raise Malformed(f"{key}: has a control character, expected one line")
    if len(value.encode()) > MAX_TEXT_BYTES:
        raise Malformed(f"{key}: is longer than {MAX_TEXT_BYTES} bytes of UTF-8")
    return value


def one_line(value: str) -> str:
    """A text made fit for `text`: control characters become spaces, what is too long loses its middle."""
    if len(value) * _WORST_UTF8_BYTES <= MAX_TEXT_BYTES and value.isprintable():
        return value
    value = _CONTROL.sub(" ", value)
    return shorten_bytes(value.encode(), MAX_TEXT_BYTES)


def boolean(fields: Fields, key: str) -> bool:
    """The boolean under a key."""
    value = fields.get(key)
    if type(value) is not bool:
        raise wrong(fields, key, "a boolean")
    return value


def uint(fields: Fields, key: str) -> int:
    """The whole number under a key, 0 to 2**63 - 1."""
    value = fields.get(key)
    if type(value) is not int or not 0 <= value <= MAX_UINT:
        raise wrong(fields, key, "an integer from 0 to 2**63 - 1")
    return value


def timeout(fields: Fields, key: str) -> float:
    """The seconds under a key, finite and above 0; a whole number may come as an integer."""
    value = fields.get(key)
    if (type(value) is float or type(value) is int) and 0 < value < math.inf:
        return float(value)
    raise wrong(fields, key, "a finite number of seconds above 0")


def wait(fields: Fields, key: str) -> float:
    """The seconds under a key, finite, 0 allowed; a whole number may come as an integer."""
    value = fields.get(key)
    if (type(value) is float or type(value) is int) and 0 <= value < math.inf:
        return float(value)
    raise wrong(fields, key, "a finite number of seconds, not negative")


def array(fields: Fields, key: str) -> tuple[Any, ...]:
    """The array under a key; unpacking has bounded its length."""
    value = fields.get(key)
    if type(value) is not tuple:
        raise wrong(fields, key, "an array")
    return value
