"""Files with requests to a model that an operator gives: .npz, with an array `in.NAME` for each input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trtd.errors import InvalidConfig, TrtdError
from trtd.files import open_regular
from trtd.runtime.protocol import Arrays
from trtd.wire.messages import Dtype, TensorSpec
from trtd.wire.tensors import to_dtype, to_frame, to_numpy
from trtd.worker.validate import ServedModel

INPUT_PREFIX = "in."
OUTPUT_PREFIX = "out."


def read_inputs(served: ServedModel, path: str) -> Arrays:
    """Read a request; a file with a known answer will do, whose outputs do not matter.

    Raises:
        trtd.errors.InvalidConfig: it cannot be read, or is no request to this model.
    """
    where = f"model {served}: warm-up {path}"
    arrays = read_arrays(where, path)
    if not any(key.startswith(INPUT_PREFIX) for key in arrays):
        got = ", ".join(sorted(arrays)) or "none"
        raise InvalidConfig(f"{where}: wanted an array {INPUT_PREFIX}NAME for each input; got {got}")
    return as_request(served, where, arrays)


def read_arrays(where: str, path: str) -> dict[str, np.ndarray]:
    """All arrays of a file.

    Raises:
        trtd.errors.InvalidConfig: it cannot be read.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with open_regular(path) as opened, np.load(opened, allow_pickle=False) as file:
            for key in file.files:
                arrays[key] = file[key]
    except OSError as error:
        raise InvalidConfig(f"{where}: {error.strerror or error}") from error
    except Exception as error:  # whatever numpy raises for a file, it is the file that cannot be used
        raise InvalidConfig(f"{where}: not an .npz file of plain arrays: {error}") from error
    return arrays


def as_request(served: ServedModel, where: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The inputs among the arrays, by the same way as a client's request: what a client is refused is refused here.

    Raises:
        trtd.errors.InvalidConfig: they are no request to this model.
    """
    inputs = {key.removeprefix(INPUT_PREFIX): one for key, one in arrays.items() if key.startswith(INPUT_PREFIX)}
    known = served.description
    dtypes = {contract.name: contract.dtype for contract in known.inputs + known.optional_inputs}
    try:
        specs = tuple(TensorSpec(name, _dtype_of(one, dtypes.get(name)), one.shape) for name, one in inputs.items())
        return served.plan(specs).read([to_frame(one) for one in inputs.values()]).arrays
    except TrtdError as error:
        raise InvalidConfig(f"{where}: {error.message}") from error


def _dtype_of(array: np.ndarray, wanted: Dtype | None) -> Dtype:
    # An .npz file has no bfloat16 and no float8: their bits stand in arrays of uint16 and uint8.
    if wanted is not None and array.dtype == to_numpy(wanted):
        return wanted
    return to_dtype(array.dtype)
