"""Plugins: layers that plans name and TensorRT does not build in. Its own are registered, then the operator's.

A plugin library is code of this process, so a file that others could have written is not loaded. Both have to happen
before a plan that needs them is deserialized, and what is registered stays so for the life of the process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from trtd.errors import InvalidConfig
from trtd.runtime.code_files import untrusted
from trtd.runtime.tensorrt.judge import ask, assign
from trtd.runtime.tensorrt.recorder import ErrorBook

ENTRIES = ("getCreators", "getPluginCreators")
"""What a library exports whose plugins TensorRT's registry takes by itself; others register when they are loaded."""


def register_plugins(module: ModuleType, logger: Any, recorder: Any, paths: Sequence[str], book: ErrorBook) -> None:
    """Register TensorRT's own plugins, where this flavour has any, and those of libraries.

    Args:
        module: TensorRT.
        logger: for its own plugins.
        recorder: for what its registry says of libraries; into `book`.
        paths: of the libraries.
        book: see above; emptied.

    Raises:
        trtd.errors.InvalidConfig: a library is not there, could be changed by others, or cannot be loaded.
    """
    if hasattr(module, "init_libnvinfer_plugins"):
        book.clear()
        if not ask(module.init_libnvinfer_plugins, logger, ""):
            raise InvalidConfig(f"TensorRT's own plugins cannot be registered: {'; '.join(book.take())}")
    for path in paths:
        trouble = untrusted(Path(path))
        if trouble:
            raise InvalidConfig(f"tensorrt.plugin_libraries: {trouble}")
        _load(module, recorder, path, book)


def _load(module: ModuleType, recorder: Any, path: str, book: ErrorBook) -> None:
    try:
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise InvalidConfig(f"tensorrt.plugin_libraries: {' '.join(str(error).split())}") from error
    if not any(hasattr(library, name) for name in ENTRIES):
        return
    book.clear()
    registry = ask(module.get_plugin_registry)
    # It has a recorder of its own, and without one it says nothing. It outlives Python, and so must not keep ours.
    assign(registry, "error_recorder", recorder)
    try:
        handle = ask(registry.load_library, path)
    finally:
        assign(registry, "error_recorder", None)
    if handle is None:
        why = "; ".join(book.take()) or "TensorRT does not say why; its plugins may be registered already"
        raise InvalidConfig(f"tensorrt.plugin_libraries: the plugins of {path} cannot be registered: {why}")
