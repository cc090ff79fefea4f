"""What is wrong with the files that a configuration names, as this user sees them; nothing is loaded for it.

It is said by `trtd config check`, and by `trtd serve --model`: who names a file by hand wants to know at once. A daemon
with a configuration starts all the same, because one tenant's file must not keep it from serving the others.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import BinaryIO

from trtd.config.model import Config, Model, Tenant
from trtd.config.origins import Problem
from trtd.config.schema import KeyPath
from trtd.core.key_files import is_private
from trtd.core.onnx_files import TooMuch, Unreadable, check_model, external_locations
from trtd.engine.compatibility import Flavour
from trtd.engine.header import PlanHeader, PlanKind, read_header
from trtd.errors import InvalidConfig
from trtd.files import open_regular

ORT_MAGIC = b"ORTM"
"""In bytes 4 to 7 of a model in the format of ONNX Runtime itself, of which nothing more is known here."""
ZIP_MAGIC = b"PK"
ELF_MAGIC = b"\x7fELF"

Look = Callable[[BinaryIO, str], str]
"""What is wrong with an open file; empty where nothing is."""


def file_problems(config: Config) -> list[Problem]:
    """One problem for each file that cannot be used, and for each limit that is less than its file needs."""
    return [*_key_file(config), *(one for name, tenant in config.tenants.items() for one in _tenant(name, tenant))]


def _key_file(config: Config) -> Iterator[Problem]:
    file = config.router.curve_secret_key_file
    if file:
        yield from _problem(("router", "curve_secret_key_file"), file, _secret)


def _tenant(name: str, tenant: Tenant) -> Iterator[Problem]:
    if tenant.runtime == "scripted":
        return
    at: KeyPath = ("tenants", name)
    is_onnx = tenant.runtime == "onnxruntime"
    libraries = tenant.onnxruntime.custom_op_libraries if is_onnx else tenant.tensorrt.plugin_libraries
    key: KeyPath = ("onnxruntime", "custom_op_libraries") if is_onnx else ("tensorrt", "plugin_libraries")
    for library in libraries:
        yield from _problem((*at, *key), library, _begins(ELF_MAGIC, "it is no library for Linux"))
    for table, model in tenant.models.items():
        yield from _model((*at, "models", table), model, tenant)
    if is_onnx:
        yield from _too_little_memory(at, tenant)


def _model(at: KeyPath, model: Model, tenant: Tenant) -> Iterator[Problem]:
    yield from _problem((*at, "path"), model.path, _onnx if tenant.runtime == "onnxruntime" else _plan_for(tenant))
    is_archive = _begins(ZIP_MAGIC, "it is no .npz file")
    for path in model.warm_up_inputs:
        yield from _problem((*at, "warm_up_inputs"), path, is_archive)
    if model.probe is not None:
        yield from _problem((*at, "probe", "path"), model.probe.path, is_archive)


def _problem(at: KeyPath, path: str, look: Look) -> Iterator[Problem]:
    try:
        with open_regular(path) as file:
            trouble = look(file, path) if os.fstat(file.fileno()).st_size else "is empty"
    except (OSError, ValueError) as error:
        trouble = (getattr(error, "strerror", None) or str(error)).lower()
    if trouble:
        yield Problem(at, f"{path}: {trouble}")


def _begins(magic: bytes, otherwise: str) -> Look:
    return lambda file, _: "" if file.read(len(magic)) == magic else otherwise


def _secret(file: BinaryIO, _path: str) -> str:
    status = os.fstat(file.fileno())
    mode = stat.S_IMODE(status.st_mode)
    if is_private(mode, status.st_uid, status.st_gid):
        return ""
    return f"holds a secret and is open to others (mode {mode:04o}); make it 0600"


def _onnx(file: BinaryIO, path: str) -> str:
    fd = file.fileno()
    if os.pread(fd, len(ORT_MAGIC), 4) == ORT_MAGIC:
        return ""
    try:
        check_model(lambda at, count: os.pread(fd, count, at), os.fstat(fd).st_size)
        beside = _beside(fd, path)
    except TooMuch:
        return ""
    except Unreadable as error:
        return f"it is no ONNX model: {error}"
    for weights in beside:
        try:
            open_regular(weights).close()
        except (OSError, ValueError) as error:
            return f"its weights in {weights}: {(getattr(error, 'strerror', None) or str(error)).lower()}"
    return ""


def _beside(fd: int, path: str) -> list[str]:
    """Files with the weights of an ONNX model."""
    locations = external_locations(lambda at, count: os.pread(fd, count, at), os.fstat(fd).st_size)
    return [str(PurePath(path).parent / location) for location in locations]


def _plan_for(tenant: Tenant) -> Look:
    def look(file: BinaryIO, _path: str) -> str:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as plan:
            try:
                return _unfit(read_header(plan), tenant)
            except InvalidConfig as error:
                return error.message

    return look


def _unfit(header: PlanHeader, tenant: Tenant) -> str:
    wanted = PlanKind.RTX if tenant.runtime == Flavour.RTX.value else PlanKind.TENSORRT
    if header.kind is not wanted:
        return f"it is a plan of {header.kind}, and the tenant's runtime is {tenant.runtime}"
    limit = tenant.tensorrt.hard_bytes
    if limit and tenant.tensorrt.streamed_weights_bytes == -1 and header.weights_bytes > limit:
        return f"it has {header.weights_bytes} bytes of weights, and tensorrt.hard_bytes is {limit}"
    return ""


def _too_little_memory(at: KeyPath, tenant: Tenant) -> Iterator[Problem]:
    """A worker that is above its limit with its models alone would be replaced for ever."""
    limit = tenant.memory.limit_bytes
    needed = sum(_size(model.path) for model in tenant.models.values()) if limit else 0
    if needed > limit:
        yield Problem((*at, "memory", "limit_bytes"), f"is {limit}, and the files of the models have {needed} bytes")


def _size(path: str) -> int:
    """Bytes of a model and of its weights beside it; 0 for what cannot be read, which is a problem of its own."""
    try:
        with open_regular(path) as file:
            own = os.fstat(file.fileno()).st_size
            return own + sum(os.stat(one).st_size for one in _beside(file.fileno(), path))  # noqa: PTH116
    except (OSError, ValueError, Unreadable):
        return 0
