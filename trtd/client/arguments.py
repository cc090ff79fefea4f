"""What callers pass, as what requests hold. What cannot be sent is refused here with one line, before any of it is."""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from trtd.client.values import Tensor
from trtd.errors import InvalidInput, Malformed, TrtdError, UnsupportedDtype, Usage
from trtd.wire import codec, headers
from trtd.wire.messages import MAX_TENSORS
from trtd.wire.tensors import Bits

LONGEST_TIMEOUT_S = 366 * 86_400.0
"""Of a request: no clock of any part of the way runs over."""

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def seconds_of(timeout: Any) -> float:
    """The timeout of a request.

    Raises:
        trtd.errors.Usage: it is no number of seconds above 0, or has no end.
    """
    timeout_s = _number(timeout)
    if timeout_s is None or not 0 < timeout_s <= LONGEST_TIMEOUT_S:
        longest = f"at most {LONGEST_TIMEOUT_S:.0f}"
        raise Usage(f"timeout has to be a finite number of seconds above 0, {longest}, not {_show(timeout)}")
    return timeout_s


def wait_of(timeout: Any) -> float | None:
    """How long to wait for a handle; None for as long as it takes.

    Raises:
        trtd.errors.Usage: it is no number of seconds.
    """
    if timeout is None:
        return None
    wait_s = _number(timeout)
    if wait_s is None or math.isnan(wait_s):
        raise Usage(f"timeout has to be a number of seconds or None, not {_show(timeout)}")
    # What is longer ends with the request's own timeout anyway.
    return None if wait_s > LONGEST_TIMEOUT_S else wait_s


def priority_of(priority: Any) -> int:
    """The priority of a request.

    Raises:
        trtd.errors.Usage: it is no whole number in the range.
    """
    value = _whole(priority)
    if value is None or not codec.MIN_PRIORITY <= value <= codec.MAX_PRIORITY:
        raise Usage(
            f"priority has to be a whole number from {codec.MIN_PRIORITY} to {codec.MAX_PRIORITY}, "
            f"not {_show(priority)}"
        )
    return value


def window_of(window: Any) -> int:
    """How many requests are on their way at a time.

    Raises:
        trtd.errors.Usage: no request fits.
    """
    value = _whole(window)
    if value is None or value < 1:
        raise Usage(f"window has to be a whole number of at least 1, not {_show(window)}")
    return value


def name_of(value: Any, what: str) -> str:
    """The name of a model, or a version.

    Raises:
        trtd.errors.Usage: no model and no version can have it.
    """
    if not isinstance(value, str):
        raise Usage(f"{what} has to be a string, not {_show(value)}")
    try:
        return headers.check_name(str(value), what)
    except Malformed as error:
        raise Usage(error.message) from None


def version_of(value: Any) -> str | None:
    """A version of a model, None for the newest.

    Raises:
        trtd.errors.Usage: as `name_of`.
    """
    return None if value is None else name_of(value, "version")


def tenant_of(value: Any) -> str:
    """The name of a tenant, which becomes part of a path.

    Raises:
        trtd.errors.Usage: no tenant can have it.
    """
    name = name_of(value, "tenant")
    if not _TENANT.fullmatch(name):
        raise Usage(f"no tenant is called {headers.show(name)}: names have 1 to 63 of a-z, 0-9, - and _")
    return name


def path_of(value: Any) -> str:
    """A directory.

    Raises:
        trtd.errors.Usage: it is no path.
    """
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path:
        raise Usage(f"runtime_dir has to be a path, not {_show(value)}")
    return path


def array_of_shape(shape: Any, dtype: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """A shape and a dtype, as NumPy understands them.

    Raises:
        trtd.errors.Usage: it does not.
    """
    try:
        element = np.dtype(dtype)
        dims = (_whole(shape),) if hasattr(shape, "__index__") else tuple(map(_whole, shape))
    except (TypeError, ValueError) as error:
        raise Usage(f"there is no array of such a shape and dtype: {headers.one_line(str(error))}") from None
    known = tuple(dim for dim in dims if dim is not None and dim >= 0)
    if len(known) != len(dims):
        raise Usage("the shape of an array has whole numbers of at least 0")
    return known, element


def inputs_of(inputs: Any) -> dict[str, Tensor]:
    """The inputs of a call as arrays by name. Arrays are taken as they are, without a copy of their elements.

    Numbers of Python have no dtype: floats become float32, which most models take, whole numbers int64.

    Raises:
        trtd.errors.InvalidInput: it is no mapping, has too many entries, or a name or a value cannot be sent.
        trtd.errors.UnsupportedDtype: a value has no dtype that travels.
    """
    if not isinstance(inputs, Mapping):
        raise InvalidInput(f"inputs have to be a mapping of names to arrays, not {_show(inputs)}")
    if len(inputs) > MAX_TENSORS:
        raise InvalidInput(f"a request has at most {MAX_TENSORS} inputs, not {len(inputs)}")
    arrays: dict[str, Tensor] = {}
    for name, value in inputs.items():
        try:
            arrays[name_of(name, "the name of an input")] = _array_of(value)
        except Usage as error:
            raise InvalidInput(error.message) from None
        except TrtdError as error:
            raise type(error)(f"input {name!r}: {error.message}") from None
    return arrays


def wanted_of(outputs: Any) -> tuple[str, ...]:
    """The names of the wanted outputs.

    Raises:
        trtd.errors.InvalidInput: they are no names, none or too many, or two are the same.
    """
    # A string is a sequence of strings too, and never meant so.
    names = () if isinstance(outputs, str) or not isinstance(outputs, Iterable) else tuple(outputs)
    if not 0 < len(names) <= MAX_TENSORS:
        raise InvalidInput(f"outputs has to be a list of 1 to {MAX_TENSORS} names, not {_show(outputs)}")
    try:
        names = tuple(name_of(name, "the name of an output") for name in names)
    except Usage as error:
        raise InvalidInput(error.message) from None
    if len(set(names)) != len(names):
        raise InvalidInput(f"outputs names an output twice: {', '.join(names)}")
    return names


def iterator_of(inputs: Any) -> Iterable[Any]:
    """The inputs of many calls.

    Raises:
        trtd.errors.Usage: they cannot be iterated over, or are the inputs of one call.
    """
    if isinstance(inputs, Mapping) or not isinstance(inputs, Iterable):
        raise Usage(f"inputs have to be an iterable of mappings, one for each request, not {_show(inputs)}")
    return inputs


def _array_of(value: Any) -> Tensor:
    if isinstance(value, Bits):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidInput("a masked array has elements without a value; send what its filled() returns")
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if value is None:
        raise UnsupportedDtype("is None; pass an array, a list of numbers, a BFloat16 or a Float8")
    reason = ""
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except Exception as error:  # whatever somebody else's class raises
            reason = headers.one_line(str(error))
    try:
        array = np.asarray(value)
    except Exception as error:  # as above
        raise InvalidInput(_unreadable(value, headers.one_line(str(error)))) from None
    if array.dtype.hasobject:
        raise UnsupportedDtype(_unreadable(value, reason or "it holds other things than numbers of one kind"))
    return _as_single(array) if array.dtype == np.float64 and _is_python(value) else array


def _as_single(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not np.array_equal(np.isfinite(single), np.isfinite(array)):
        raise InvalidInput("has a number that float32 cannot hold; pass a NumPy array of the dtype that is meant")
    return single


def _is_python(value: Any) -> bool:
    """Whether it is made of numbers of Python only, which say nothing of a dtype."""
    if type(value) in (list, tuple):
        return all(map(_is_python, value))
    return type(value) in (float, int, bool)


def _unreadable(value: Any, why: str) -> str:
    return f"a {type(value).__name__} cannot be read as an array: {why}"


def _number(value: Any) -> float | None:
    if isinstance(value, bool | np.bool_ | str | bytes):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def _whole(value: Any) -> int | None:
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return int(operator.index(value))
    except (TypeError, ValueError, RuntimeError):
        return None


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float | np.generic):
        return headers.one_line(str(value)[:40])
    if isinstance(value, str):
        return headers.show(value)
    return f"a {type(value).__name__}"
