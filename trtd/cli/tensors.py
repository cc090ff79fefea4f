"""Inputs for `trtd infer` and `trtd bench`: from files, or made from what the model says of itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from trtd.cli import operator
from trtd.cli.operator import PERMISSIONS_HINT
from trtd.cli.values import cut
from trtd.client import BFloat16, Client, Float8
from trtd.client.values import Tensor
from trtd.errors import InvalidInput, NotAllowed, TrtdError, UnknownModel, Unreachable, Usage
from trtd.files import open_regular
from trtd.wire import addresses, tensors
from trtd.wire.messages import Dtype, ModelDescription, TensorContract

SHOWN_NAME = 80
"""Characters of a name in an error; clients may write any."""
FILE_HINT = "Give a .npy file with one array, as numpy.save writes it."
SMALL_NUMBERS = 10
"""Random integers stay below this, so that they are valid as ids into most tables."""

Shape = tuple[int, ...]


def open_client(tenant: str, runtime_dir: str, timeout_s: float) -> Client:
    """A client of a tenant of this host.

    Raises:
        trtd.errors.Unreachable: no daemon runs there, said at once rather than after the timeout.
        trtd.errors.Usage: it has no such tenant.
    """
    path = Path(addresses.tenant_address(runtime_dir, tenant).removeprefix("ipc://"))
    try:
        is_there = path.exists()
        if is_there and not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError
    except PermissionError:
        raise NotAllowed(f"the permissions of {path} keep this user out", hint=PERMISSIONS_HINT) from None
    except OSError:
        # No file can have such a name, and so no tenant has.
        is_there = False
    if not is_there:
        known = _tenants(runtime_dir)
        if not known and not Path(addresses.operator_path(runtime_dir)).exists():
            raise Unreachable(f"no daemon runs in {runtime_dir}")
        raise Usage(f"there is no tenant {cut(tenant, SHOWN_NAME)!r}; there are: {', '.join(known) or 'none'}")
    return Client.for_tenant(tenant, runtime_dir, timeout=timeout_s)


def _tenants(runtime_dir: str) -> list[str]:
    """Names of the tenants: from the daemon, or, where it does not tell this user, from the sockets that are there."""
    try:
        return [tenant["name"] for tenant in operator.call(runtime_dir, "status", {})["tenants"]]
    except TrtdError:
        directory = Path(runtime_dir)
        sockets = sorted(directory.glob("*.sock")) if os.access(directory, os.R_OK) else []
        return [socket.stem for socket in sockets if str(socket) != addresses.operator_path(runtime_dir)]


def describe(client: Client, model: str, version: str | None) -> ModelDescription:
    """What the daemon says of one model.

    Raises:
        trtd.errors.UnknownModel: it has none of that name and version.
    """
    found = [one for one in client.describe(model) if version is None or one.version == version]
    if not found:
        there = ", ".join(one.version for one in client.describe(model))
        raise UnknownModel(f"model {model!r} has no version {version!r}; there are: {there}")
    return found[-1]


def make_inputs(
    description: ModelDescription, given: Sequence[str], shapes: Sequence[str], *, batch: int = 1
) -> dict[str, Tensor]:
    """One tensor for each input of a model; those that have a default are left out unless they are given.

    Args:
        description: of the model.
        given: `NAME=FILE.npy`, `NAME=random`, `NAME=zeros` or `NAME=ones`; an input that is not named is random.
        shapes: `NAME=1,3,224,224`; without one, dimensions that may vary are 1.
        batch: size of the first dimension, where that may vary.

    Raises:
        trtd.errors.Usage: an argument is not of that form, or names no input.
        trtd.errors.InvalidInput: a file cannot be read as an array.
    """
    optional = {contract.name: contract for contract in description.optional_inputs}
    known = {contract.name: contract for contract in description.inputs} | optional
    sources = _pairs("--input", given, known)
    dims = {name: _dims(text) for name, text in _pairs("--shape", shapes, known).items()}
    rng = np.random.default_rng()
    inputs: dict[str, Tensor] = {}
    for name, contract in known.items():
        if name in optional and name not in sources and name not in dims:
            continue
        source = sources.get(name, "random")
        if source not in {"random", "zeros", "ones"}:
            inputs[name] = _load(contract, Path(source))
            continue
        shape = dims.get(name) or _default_shape(contract, batch)
        try:
            inputs[name] = _generate(contract.dtype, source, shape, rng)
        except (MemoryError, ValueError, OverflowError):
            sizes = "x".join(map(str, shape))
            text = f"input {name!r}: this host cannot make an array of {cut(sizes, SHOWN_NAME)}"
            raise InvalidInput(text, hint="Give a smaller --shape or --batch.") from None
    return inputs


def _pairs(flag: str, texts: Sequence[str], known: Mapping[str, TensorContract]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        # A tensor's name may hold "=", a value does not.
        name, equals, value = text.rpartition("=")
        if not (name and equals and value):
            raise Usage(f"{flag} takes NAME=VALUE, not {text!r}")
        if name not in known:
            raise Usage(f"{flag}: the model has no input {name!r}; it has {', '.join(known)}")
        pairs[name] = value
    return pairs


def _dims(text: str) -> Shape:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = (-1,)
    if min(shape) < 0:
        raise Usage(f"--shape takes whole numbers as in 1,3,224,224, not {text!r}")
    return shape


def _default_shape(contract: TensorContract, batch: int) -> Shape:
    if contract.shape is None:
        return (batch,)
    first = tuple(batch if size is None else size for size in contract.shape[:1])
    return first + tuple(1 if size is None else size for size in contract.shape[1:])


def _generate(dtype: Dtype, source: str, shape: Shape, rng: np.random.Generator) -> Tensor:
    values: np.ndarray
    if source != "random":
        values = np.zeros(shape) if source == "zeros" else np.ones(shape)
    elif dtype is Dtype.BOOL:
        values = rng.integers(0, 2, shape)
    elif dtype.startswith(("int", "uint")):
        values = rng.integers(0, SMALL_NUMBERS, shape)
    else:
        values = rng.standard_normal(shape)
    if dtype is Dtype.BFLOAT16:
        return BFloat16.from_float32(values)
    if dtype in tensors.FLOAT8S:
        return Float8.from_float32(values, dtype)
    return np.asarray(values, dtype=tensors.to_numpy(dtype))


def _load(contract: TensorContract, path: Path) -> Tensor:
    try:
        with open_regular(str(path)) as file:
            array: np.ndarray = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no .npy file of numbers"
        raise InvalidInput(f"input {contract.name!r}: {path} cannot be read: {reason}", hint=FILE_HINT) from None
    if not isinstance(array, np.ndarray):
        raise InvalidInput(f"input {contract.name!r}: {path} is an archive", hint=FILE_HINT)
    if contract.dtype is Dtype.BFLOAT16:
        return BFloat16(array) if array.dtype == np.uint16 else BFloat16.from_float32(array)
    if contract.dtype in tensors.FLOAT8S:
        is_bits = array.dtype == np.uint8
        return Float8(array, contract.dtype) if is_bits else Float8.from_float32(array, contract.dtype)
    return array
