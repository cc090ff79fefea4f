"""Finding TensorRT: which package and library a flavour needs, imported from where the configuration says.

The package `tensorrt` is a thin front of `tensorrt_bindings`, which is enough where only that is installed. Several
versions may lie on one host: each worker is told its own directories.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from trtd.engine.compatibility import LINUX_X86_64, Flavour
from trtd.errors import InvalidConfig
from trtd.wire.tensorrt import TensorRTSettings

PACKAGES: dict[Flavour, tuple[str, ...]] = {
    Flavour.FULL: ("tensorrt", "tensorrt_bindings"),
    Flavour.LEAN: ("tensorrt_lean", "tensorrt_lean_bindings"),
    Flavour.DISPATCH: ("tensorrt_dispatch", "tensorrt_dispatch_bindings"),
    Flavour.RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
"""Names under which a flavour may be installed, in the order of trying."""

LIBRARIES: dict[Flavour, tuple[str, ...]] = {
    Flavour.FULL: ("libnvinfer.so*", "libnvinfer_plugin.so*", "libnvonnxparser.so*"),
    Flavour.LEAN: ("libnvinfer_lean.so*",),
    Flavour.DISPATCH: ("libnvinfer_dispatch.so*",),
    Flavour.RTX: ("libtensorrt_rtx.so*", "libtensorrt_onnxparser_rtx.so*"),
}
"""What the bindings need, in the order in which it has to be loaded."""


@dataclass(frozen=True, slots=True)
class Package:
    """An imported TensorRT.

    Attributes:
        flavour: which.
        module: the Python module, under whatever name it was found.
        version: as the module says.
        place: directory that it came from.
    """

    flavour: Flavour
    module: ModuleType
    version: str
    place: str


def find_package(flavour: Flavour, settings: TensorRTSettings) -> Package:
    """Import a flavour of TensorRT.

    Raises:
        trtd.errors.InvalidConfig: it is not installed, or its libraries cannot be loaded; it says where it looked.
    """
    if settings.package_path:
        if not Path(settings.package_path).is_dir():
            raise InvalidConfig(f"tensorrt.package_path {settings.package_path} is no directory")
        # In front of the installed ones, which may be of another version.
        sys.path.insert(0, settings.package_path)
        importlib.invalidate_caches()
    if settings.library_path:
        preload(flavour, Path(settings.library_path))
    names = PACKAGES[flavour]
    name = next((name for name in names if importlib.util.find_spec(name) is not None), None)
    if name is None:
        where = settings.package_path or "the import path"
        raise InvalidConfig(f"{flavour} is not installed: no package {' or '.join(names)} in {where}")
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise InvalidConfig(f"{name} cannot be imported: {' '.join(str(error).split())}") from error
    place = str(Path(module.__file__ or "").parent)
    return Package(flavour, module, str(getattr(module, "__version__", "unknown")), place)


def preload(flavour: Flavour, directory: Path) -> None:
    """Load a flavour's libraries from a directory, so that the bindings find them loaded already.

    Raises:
        trtd.errors.InvalidConfig: the first of them is not there or cannot be loaded.
    """
    for index, pattern in enumerate(LIBRARIES[flavour]):
        found = sorted(directory.glob(pattern), key=lambda path: len(path.name))
        if not found:
            if index == 0:
                raise InvalidConfig(f"tensorrt.library_path {directory} holds no {pattern.rstrip('*')}")
            continue
        try:
            ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise InvalidConfig(f"{found[0]} cannot be loaded: {' '.join(str(error).split())}") from error


def platform_tag(flavour: Flavour) -> bytes | None:
    """The tag that plans for this host have; None where that is not known."""
    is_known = flavour is not Flavour.RTX and (platform.system(), platform.machine()) == ("Linux", "x86_64")
    return LINUX_X86_64 if is_known else None
