"""The driver's figure of this process: found by either kind of name, and unknown wherever the driver does not tell."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

OURS, NEIGHBOUR = os.getpid(), os.getpid() + 1


@pytest.fixture
def nvml(import_with_cuda, monkeypatch):
    """`trtd.runtime.nvml` with a stand-in for pynvml, whose answers a test sets."""
    module: Any = ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    class NVMLErrorNotFound(NVMLError):
        pass

    for kind in (NVMLError, NVMLErrorNotFound):
        kind.__module__ = "pynvml"
    module.NVMLError, module.NVMLError_NotFound = NVMLError, NVMLErrorNotFound
    module.names, module.compute, module.mps = {"GPU-1"}, [], []

    def handle(name: str) -> str:
        if name not in module.names:
            raise NVMLErrorNotFound("not found")
        return name

    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByUUID = handle
    module.nvmlDeviceGetComputeRunningProcesses = lambda _: module.compute
    module.nvmlDeviceGetMPSComputeRunningProcesses = lambda _: module.mps
    monkeypatch.setitem(sys.modules, "pynvml", module)
    tested = import_with_cuda("trtd.runtime.nvml")
    monkeypatch.setattr(tested, "device_names", lambda _: ("GPU-1", "MIG-1"))
    return tested, module


def process(pid: int, used_bytes: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used_bytes)


@pytest.mark.parametrize("name", ["GPU-1", "MIG-1"])
def test_the_device_is_found_by_either_name(nvml, name):
    """CUDA tells a number only: NVML may know it as a GPU or as a MIG instance."""
    tested, pynvml = nvml
    pynvml.names = {name}
    pynvml.compute = [process(OURS, 5), process(NEIGHBOUR, 7)]
    memory = tested.ProcessMemory(0)
    assert (memory.read(), memory.cause) == (5, "")


def test_a_client_of_mps_is_found_in_its_own_list(nvml):
    """What is not among the processes may be among the clients."""
    tested, pynvml = nvml
    pynvml.mps = [process(OURS, 5)]
    assert tested.ProcessMemory(0).read() == 5


@pytest.mark.parametrize(
    ("compute", "cause"),
    [
        ([], "does not list this process"),
        ([process(NEIGHBOUR, 7)], "does not list this process"),
        ([process(OURS, None)], "without a figure"),
        ([process(OURS, 5), process(OURS, None)], "without a figure"),
    ],
)
def test_no_figure_is_unknown_and_not_zero(nvml, compute, cause):
    """In another pid namespace, under MPS or MIG, nothing is known, and it is said why."""
    tested, pynvml = nvml
    pynvml.compute = compute
    memory = tested.ProcessMemory(0)
    assert memory.read() is None
    assert cause in memory.cause


def test_a_device_that_nvml_does_not_know_is_unknown(nvml):
    """Neither name is known: the reason is NVML's."""
    tested, pynvml = nvml
    pynvml.names = set()
    memory = tested.ProcessMemory(0)
    assert memory.read() is None
    assert "not found" in memory.cause


def test_an_error_while_asking_is_unknown(nvml):
    """A driver that fails to answer leaves nothing known."""
    tested, pynvml = nvml

    def fail(_: Any) -> None:
        raise pynvml.NVMLError("GPU is lost")

    memory = tested.ProcessMemory(0)
    pynvml.nvmlDeviceGetComputeRunningProcesses = fail
    assert memory.read() is None
    assert "GPU is lost" in memory.cause


def test_without_nvml_nothing_is_known(nvml, monkeypatch):
    """A host without the package has no figure either."""
    tested, _ = nvml
    monkeypatch.setitem(sys.modules, "pynvml", None)
    memory = tested.ProcessMemory(0)
    assert memory.read() is None
    assert memory.cause == tested.NOT_INSTALLED
