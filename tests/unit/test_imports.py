"""The arrows of import point down, and nothing outside `trtd.runtime` needs a GPU package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imports import GPU_PACKAGES, PACKAGE, violations

BLOCK_AND_IMPORT = """
import importlib, json, sys
blocked, modules = json.loads(sys.argv[1])
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
for name in modules:
    importlib.import_module(name)
"""


def test_imports_point_down():
    """No module imports one that stands above it in the layout, nor a package that its area must do without."""
    assert violations() == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("core/ids.py", "import zmq"),
        ("core/ids.py", "from trtd.wire import messages"),
        ("core/ids.py", "import time"),
        ("wire/messages.py", "from trtd.config.model import Config"),
        ("router/__init__.py", "from trtd import worker"),
        ("supervisor/__init__.py", "import zmq"),
        ("worker/__init__.py", "import cuda.bindings"),
        ("cli/__init__.py", "from supervisor import childutils"),
        ("runtime/__init__.py", "import onnxruntime as ort"),
        ("cli/__init__.py", "def f():\n    from onnxruntime import InferenceSession"),
        ("cli/__init__.py", "from pydantic import BaseModel"),
        ("client/__init__.py", "def f():\n    import trtd.supervisor"),
    ],
)
def test_a_wrong_import_is_found(tmp_path, file, line):
    """Adding any import that breaks the layout, even inside a function, makes the check fail and names it."""
    copy = tmp_path / "trtd"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert violations(copy) == []
    with (copy / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    assert len(violations(copy)) == 1


def modules_outside_runtime() -> list[str]:
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "runtime" and parts[-1] != "__main__":
            names.append(".".join(("trtd", *parts)).removesuffix(".__init__"))
    return names


def test_everything_outside_runtime_imports_without_gpu_packages():
    """With every GPU package and ONNX Runtime made unimportable, all modules outside `trtd.runtime` import."""
    arguments = json.dumps([sorted(GPU_PACKAGES | {"onnxruntime", "onnx"}), modules_outside_runtime()])
    outcome = subprocess.run(
        [sys.executable, "-c", BLOCK_AND_IMPORT, arguments], capture_output=True, text=True, timeout=60, cwd=Path.cwd()
    )
    assert outcome.returncode == 0, outcome.stderr
