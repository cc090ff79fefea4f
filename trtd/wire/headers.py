"""What all headers share: unpacking within limits, and checks of single values with one clear line each.

Every function here raises `trtd.errors.Malformed` (or `UnsupportedVersion`, `UnsupportedDtype`) and nothing else, whatever the
bytes are. What a header means is left to `trtd.wire.codec` and `trtd.wire.batches`.
"""

from __future__ import annotations

import math
import re
from typing import Any, Never

from msgpack import ExtraData, packb, unpackb

from trtd.core.ids import REQUEST_ID_BYTES, RequestId
from trtd.errors import Malformed, TooLarge, UnsupportedVersion
from trtd.wire.messages import MAX_HEADER_BYTES, MAX_NAME_BYTES, WIRE_VERSION

MAX_TEXT_BYTES = 1024
"""Most bytes of a line meant for people, such as the message of an error."""
MAX_UINT = 2**63 - 1
"""Largest whole number in a header; it fits a signed 64-bit integer of any language."""

_MAX_ITEMS = 64
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


def _refuse_ext(code: int, _data: bytes) -> Never:
    raise ValueError(f"extension type {code} is not allowed")


def unpack(data: bytes | memoryview, what: str, max_bytes: int = MAX_HEADER_BYTES, max_items: int = _MAX_ITEMS) -> Any:
    """The one msgpack value that `data` holds, arrays as tuples; `what` names it in errors."""
    if len(data) > max_bytes:
        raise Malformed(f"{what} has {len(data)} bytes, the most is {max_bytes}")
    try:
        return unpackb(data, use_list=False, max_array_len=max_items, max_map_len=_MAX_ITEMS, ext_hook=_refuse_ext)
    except ExtraData:
        raise Malformed(f"{what} is followed by further bytes in its frame") from None
    except UnicodeDecodeError:
        raise Malformed(f"{what} holds a string that is not UTF-8") from None
    except ValueError as error:
        raise Malformed(
            f"{what} is not valid msgpack within the limits: {str(error) or type(error).__name__}"
        ) from None


def unpack_header(data: bytes | memoryview) -> Fields:
    """The header's map. Its version is checked first, so that a stranger learns which versions are spoken."""
    fields = unpack(data, "the header")
    # The number of pairs that the map claims gives repeated keys away at no cost; no value of a header is a map.
    first = data[0]
    if first & 0xF0 == 0x80:
        pairs = first & 0x0F
    elif first in {0xDE, 0xDF}:
        pairs = int.from_bytes(data[1 : 3 if first == 0xDE else 5], "big")
    else:
        raise Malformed(f"the header is {type_name(fields)}, expected a map")
    if pairs != len(fields):
        raise Malformed("the header names a key twice")
    version = fields.get("v")
    if type(version) is not int or version != WIRE_VERSION:
        refuse_version(version)
    return fields  # type: ignore[no-any-return]  # the first byte says that it is a map


def refuse_version(version: object) -> Never:
    """Say which versions are spoken here."""
    if type(version) is int:
        raise UnsupportedVersion(f"v: this side speaks wire version {WIRE_VERSION}, the message has {version}")
    if version is None:
        raise Malformed(f"v: missing; it names the wire version, {WIRE_VERSION} here")
    raise Malformed(f"v: expected an integer, got {type_name(version)}")


def pack_header(fields: Fields) -> bytes:
    """The bytes of a header.

    Raises:
        TooLarge: its names are so many or so long that it breaks the limit.
    """
    data: bytes = packb(fields)
    if len(data) > MAX_HEADER_BYTES:
        raise TooLarge(
            f"the header needs {len(data)} bytes, the most is {MAX_HEADER_BYTES}: use fewer or shorter names"
        )
    return data


def type_name(value: object) -> str:
    """The type of an unpacked value, in words that do not depend on a language."""
    return _TYPE_NAMES.get(type(value), "an extension type")


def show(value: object) -> str:
    """A value for an error line, short whatever a stranger sent."""
    if isinstance(value, str | bytes):
        return ascii(value if len(value) <= 40 else value[:40]) + ("" if len(value) <= 40 else "...")
    return str(value) if isinstance(value, int | float) else type_name(value)


def wrong(fields: Fields, key: str, expected: str) -> Never:
    """Refuse the value of a key."""
    if key not in fields:
        raise Malformed(f"{key}: missing, expected {expected}")
    raise Malformed(f"{key}: expected {expected}, got {_describe(fields[key])}")


def _describe(value: object) -> str:
    if isinstance(value, bool):
        return "a boolean"
    return show(value) if isinstance(value, int | float) else type_name(value)


def refuse_unknown_keys(fields: Fields, known: frozenset[str], what: str) -> Never:
    """Name a key that a request must not have: the daemon would silently do less than was asked."""
    unknown = next(key for key in fields if key not in known)
    raise Malformed(f"{show(unknown)} is no key of {what}; wire version {WIRE_VERSION} has {', '.join(sorted(known))}")


def request_id(fields: Fields) -> RequestId:
    """The id of the request."""
    value = fields.get("id")
    if type(value) is not bytes:
        wrong(fields, "id", f"{REQUEST_ID_BYTES} bytes of binary")
    if len(value) != REQUEST_ID_BYTES:
        raise Malformed(f"id: expected {REQUEST_ID_BYTES} bytes of binary, got {len(value)}")
    return RequestId(value)


def is_name(value: object) -> bool:
    """Whether a value may name a model, a version, a tensor."""
    if type(value) is not str or not value:
        return False
    if len(value) * _WORST_UTF8_BYTES <= MAX_NAME_BYTES and value.isprintable():
        return True
    return len(value.encode(errors="surrogatepass")) <= MAX_NAME_BYTES and _CONTROL.search(value) is None


def check_name(value: object, where: str) -> str:
    """A name: UTF-8, 1 to 256 bytes, no control characters and no line breaks."""
    if is_name(value):
        return value  # type: ignore[return-value]  # is_name saw that it is a str
    if type(value) is not str:
        raise Malformed(f"{where}: expected a string, got {_describe(value)}")
    if not value:
        raise Malformed(f"{where}: is empty")
    if len(value.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        raise Malformed(f"{where}: is longer than {MAX_NAME_BYTES} bytes of UTF-8")
    raise Malformed(f"{where}: {show(value)} has a control character")


def name(fields: Fields, key: str) -> str:
    """The name under a key."""
    value = fields.get(key)
    if is_name(value):
        return value  # type: ignore[return-value]  # is_name saw that it is a str
    if type(value) is not str:
        wrong(fields, key, "a string")
    return check_name(value, key)


def text(fields: Fields, key: str) -> str:
    """A line for people: may be empty, at most 1024 bytes, no control characters."""
    value = fields.get(key)
    if type(value) is not str:
        wrong(fields, key, "a string")
    if len(value.encode()) > MAX_TEXT_BYTES:
        raise Malformed(f"{key}: is longer than {MAX_TEXT_BYTES} bytes of UTF-8")
    if not value.isprintable() and _CONTROL.search(value):
        raise Malformed(f"{key}: has a control character, expected one line")
    return value


def one_line(value: str) -> str:
    """A text made fit for `text`: control characters become spaces, what is too long is cut."""
    if len(value) * _WORST_UTF8_BYTES <= MAX_TEXT_BYTES and value.isprintable():
        return value
    value = _CONTROL.sub(" ", value)
    encoded = value.encode()
    if len(encoded) <= MAX_TEXT_BYTES:
        return value
    return encoded[: MAX_TEXT_BYTES - 3].decode(errors="ignore") + "..."


def boolean(fields: Fields, key: str) -> bool:
    """The boolean under a key."""
    value = fields.get(key)
    if value is True or value is False:
        return value
    wrong(fields, key, "a boolean")


def uint(fields: Fields, key: str) -> int:
    """The whole number under a key, 0 to 2**63 - 1."""
    value = fields.get(key)
    if type(value) is not int or not 0 <= value <= MAX_UINT:
        wrong(fields, key, "an integer from 0 to 2**63 - 1")
    return value


def seconds(fields: Fields, key: str) -> float:
    """The length of time under a key: finite and above 0; whole numbers may come as integers."""
    value = fields.get(key)
    if type(value) is float:
        if 0.0 < value < math.inf:
            return value
    elif type(value) is int and value > 0:
        return float(value)
    wrong(fields, key, "a finite number of seconds above 0")


def array(fields: Fields, key: str, max_items: int) -> tuple[Any, ...]:
    """The array under a key."""
    value = fields.get(key)
    if type(value) is not tuple:
        wrong(fields, key, "an array")
    if len(value) > max_items:
        raise Malformed(f"{key}: has {len(value)} entries, the most is {max_items}")
    return value
