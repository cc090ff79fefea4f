"""`trtd.runtime.cuda` where no CUDA is installed: its module and those that build on it can be imported and tested."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest

STAND_INS = ("cuda", "cuda.bindings", "cuda.bindings.driver", "cuda.bindings.runtime")


@pytest.fixture
def import_with_cuda(monkeypatch):
    """Imports a module that needs `cuda.bindings`; an empty package takes its place where it is not installed.

    Nothing of it may then be called: tests replace what the code under test calls.
    """
    has_cuda = importlib.util.find_spec("cuda") is not None
    if not has_cuda:
        for name in STAND_INS:
            module = ModuleType(name)
            monkeypatch.setitem(sys.modules, name, module)
            parent, _, child = name.rpartition(".")
            if parent:
                monkeypatch.setattr(sys.modules[parent], child, module, raising=False)
    before = set(sys.modules)

    yield importlib.import_module
    if not has_cuda:
        # They hold the stand-ins; another test has to begin anew.
        for name in set(sys.modules) - before:
            if name.startswith("trtd.runtime"):
                del sys.modules[name]
                parent, _, child = name.rpartition(".")
                if parent in sys.modules:
                    delattr(sys.modules[parent], child)


@pytest.fixture
def cudart():
    """A CUDA runtime whose calls are what a test puts there; each succeeds and gives nothing by default."""

    class Runtime(SimpleNamespace):
        def __getattr__(self, name):
            if name.startswith("cudaEvent") and name[9:] in ("DisableTiming", "BlockingSync"):
                return 2 if name.endswith("Timing") else 1

            def succeed(*_):
                return 0, None

            succeed.__name__ = name
            return succeed

    return Runtime()
