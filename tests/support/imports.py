"""Which module of trtd may import which: the arrows of the layout, and how to find the imports that break them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "trtd"

LEAVES = {"errors"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "observe": {"errors"},
    "files": set(),
    "core": LEAVES,
    "wire": LEAVES | {"core"},
    "config": LEAVES | {"core", "wire", "files"},
    "child": LEAVES | {"core", "wire", "observe"},
    "engine": LEAVES | {"core", "wire"},
    "runtime": LEAVES | {"core", "wire", "engine", "observe", "files"},
    "worker": LEAVES | {"core", "wire", "child", "runtime", "observe", "files"},
    "router": LEAVES | {"core", "wire", "child", "observe", "files"},
    "health": LEAVES | {"core", "wire", "child", "observe"},
    "supervisor": LEAVES | {"core", "wire", "child", "config", "observe", "files"},
    "client": LEAVES | {"core", "wire"},
    "aio": {"client"},
    "demo": LEAVES | {"wire"},
    # Of `runtime` only its front, which imports nothing before it is asked to open a runtime.
    "cli": LEAVES
    | {"core", "wire", "config", "client", "supervisor", "demo", "observe", "engine", "runtime", "manual", "files"},
    "hosts": LEAVES | {"wire", "cli", "observe"},
    "__main__": {"cli"},
    "manual": LEAVES | {"wire", "config", "cli"},
}
"""First part of a module's name below `trtd` -> the parts that it may import, itself always."""

FORBIDDEN_PACKAGES: dict[str, set[str]] = {
    "core": {
        "os",
        "socket",
        "time",
        "random",
        "threading",
        "subprocess",
        "asyncio",
        "zmq",
        "numpy",
        "msgpack",
        "pydantic",
    },
    "wire": {"os", "socket", "time", "random", "threading", "subprocess", "asyncio", "zmq", "pydantic"},
    "health": {"zmq", "numpy", "onnxruntime", "pydantic", "tensorrt", "cuda"},
    "supervisor": {"zmq", "numpy", "onnxruntime", "tensorrt", "cuda", "prometheus_client"},
    "router": {"onnxruntime", "pydantic", "tensorrt", "cuda"},
    "worker": {"onnxruntime", "pydantic", "tensorrt", "cuda"},
    "client": {"onnxruntime", "pydantic", "tensorrt", "cuda"},
    "child": {"zmq", "numpy", "pydantic"},
    "engine": {"zmq", "numpy", "onnxruntime", "pydantic"},
}
SUPERVISORD_PACKAGE = "supervisor"
"""An optional one: `trtd.hosts` alone is loaded by supervisord, so that it is there."""
ONLY_IMPORTERS = {"onnxruntime": "trtd.runtime.ort", "pydantic": "trtd.config"}
"""Packages that must know before they are imported that they report nothing: the module, or what is above all modules,
that tells them."""
GPU_PACKAGES = {
    "tensorrt",
    "tensorrt_bindings",
    "tensorrt_lean",
    "tensorrt_lean_bindings",
    "tensorrt_dispatch",
    "tensorrt_dispatch_bindings",
    "tensorrt_rtx",
    "tensorrt_rtx_bindings",
    "cuda",
    "pynvml",
}


@dataclass(frozen=True)
class Import:
    """One import statement: who imports what, and where it stands."""

    importer: str
    imported: str
    line: int


def imports_of(path: Path, package: Path = PACKAGE) -> Iterator[Import]:
    """Every import in a file, inside functions too; `if TYPE_CHECKING` counts: types are part of a wall."""
    importer = ".".join(("trtd", *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer}:{node.lineno}: relative import"
            if node.module == "trtd":
                for alias in node.names:
                    yield Import(importer, f"trtd.{alias.name}", node.lineno)
            else:
                yield Import(importer, node.module or "", node.lineno)


def violations(package: Path = PACKAGE) -> list[str]:
    """One line for each import that goes against the arrows."""
    found = []
    for path in sorted(package.rglob("*.py")):
        if path.parent == package and path.name == "__init__.py":
            continue
        for item in imports_of(path, package):
            area = item.importer.split(".")[1]
            parts = item.imported.split(".")
            if area not in ALLOWED:
                found.append(f"{item.importer}: {area} has no place in the layout")
            elif parts[0] == "trtd":
                target = parts[1] if len(parts) > 1 else ""
                if target not in ALLOWED[area] | {area, "", "__version__"}:
                    found.append(f"{item.importer}:{item.line} imports {item.imported}")
            elif (
                parts[0] in FORBIDDEN_PACKAGES.get(area, set())
                or (parts[0] in GPU_PACKAGES and area != "runtime")
                or (parts[0] == SUPERVISORD_PACKAGE and area != "hosts")
                or not f"{item.importer}.".startswith(f"{ONLY_IMPORTERS.get(parts[0], item.importer)}.")
            ):
                found.append(f"{item.importer}:{item.line} imports {item.imported}")
    return found
