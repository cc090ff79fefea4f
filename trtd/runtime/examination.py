"""What one flavour of TensorRT finds on this host: run as a program by `trtd doctor`, because it may crash or hang.

    python -m trtd.runtime.examination      an `Order` as JSON on stdin, `Finding`s as JSON on stdout

Everything is tried for real: the driver, the device, an allocation, a kernel, the package, each plan's header.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trtd.core.faults import FaultKind, ProcessFault
from trtd.engine.compatibility import Flavour, Installed, incompatibility
from trtd.engine.header import read_header
from trtd.errors import InvalidConfig, TrtdError
from trtd.files import open_regular
from trtd.wire.tensorrt import TensorRTSettings

OK = "ok"
WARNING = "warning"
PROBLEM = "problem"

COMPUTE_MODES = {0: "Default", 1: "Exclusive thread", 2: "Prohibited", 3: "Exclusive process"}
MPS_CONTROL = "nvidia-cuda-mps"
"""The kernel keeps 15 letters of a process's name."""
ADVICE_TO_INSTALL = "Install an NVIDIA driver, or choose a device that is there."
ADVICE_TO_WAIT = "Workers try again by themselves; if it does not come, look at the service that it waits for."


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: what it concerns.
        level: `ok`, `warning` or `problem`.
        text: what is there.
        advice: what to do about it; empty where nothing is to be done.
    """

    area: str
    level: str
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """What to look at.

    Attributes:
        flavour: of TensorRT.
        settings: as the tenant has them.
        plans: names and paths of configured plans.
    """

    flavour: str
    settings: TensorRTSettings
    plans: tuple[tuple[str, str], ...]


def examine(order: Order) -> Iterator[Finding]:
    """Everything, in the order in which it is needed; ends where nothing further can be looked at."""
    try:
        from trtd.runtime import cuda
    except ImportError as error:
        yield Finding("cuda", PROBLEM, f"cuda-bindings cannot be imported: {error}", "Install trtd[gpu].")
        return
    has_device = False
    try:
        settings = order.settings
        device = cuda.open_device(settings.device, is_spinning=settings.is_spinning, is_lazy=settings.is_lazy)
        has_device = True
        major, minor = device.compute_capability
        text = f"{device.name}, compute capability {major}.{minor}, driver for CUDA {device.driver_version // 1000}"
        yield Finding("device", OK, text)
        yield from _modes(settings.device)
        yield _work()
        yield _memory(settings)
    except (TrtdError, ProcessFault) as error:
        told = error.message if isinstance(error, TrtdError) else error.fault.message
        is_awaited = isinstance(error, ProcessFault) and error.fault.kind is FaultKind.DEVICE_AWAITED
        yield Finding("device", PROBLEM, told, ADVICE_TO_WAIT if is_awaited else ADVICE_TO_INSTALL)
    yield from _mps()
    yield from _packages(order, has_device)


def _modes(ordinal: int) -> Iterator[Finding]:
    from cuda.bindings import runtime as cudart

    from trtd.runtime import cuda

    mode = cuda.call(cudart.cudaDeviceGetAttribute, cudart.cudaDeviceAttr.cudaDevAttrComputeMode, ordinal)
    name = COMPUTE_MODES.get(int(mode), str(int(mode)))
    if int(mode) == 0:
        yield Finding("compute mode", OK, name)
    else:
        advice = "Only one process at a time may use it: use MPS, or `nvidia-smi -c DEFAULT`."
        yield Finding("compute mode", WARNING, name, advice)
    mig = _mig_mode(cuda.device_names(ordinal))
    yield Finding("MIG", OK, mig)


def _mig_mode(names: tuple[str, str]) -> str:
    from trtd.runtime.nvml import find_device

    try:
        import pynvml
    except ImportError:
        return "unknown: nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
        device = find_device(pynvml, names)
        # A number, or a ctypes value of one: by version.
        is_instance = pynvml.nvmlDeviceIsMigDeviceHandle(device)
        if getattr(is_instance, "value", is_instance):
            return "on: this process sees an instance"
        current, pending = pynvml.nvmlDeviceGetMigMode(device)
    except pynvml.NVMLError_NotSupported:
        return "not supported by this device"
    except pynvml.NVMLError as error:
        return f"unknown: {error}"
    state = "on" if current else "off"
    return state if current == pending else f"{state}, to be {'on' if pending else 'off'} after a reset"


def _work() -> Finding:
    """An allocation, a memset and a kernel of our own."""
    from trtd.runtime import cuda
    from trtd.runtime.injection import Injector

    code = cuda.probe()
    if code:
        return Finding("work", PROBLEM, f"a small memset fails with CUDA error {code}", "Look at `dmesg` for Xid.")
    try:
        Injector().run_nothing()
    except cuda.CudaError as error:
        return Finding("work", PROBLEM, f"a small kernel fails: {error}", "The driver may be older than the device.")
    return Finding("work", OK, "allocated, set and ran a kernel")


def _memory(settings: TensorRTSettings) -> Finding:
    from trtd.runtime import cuda

    free_bytes, total_bytes = cuda.memory_info()
    text = f"{free_bytes // 2**20} MiB free of {total_bytes // 2**20} MiB"
    if settings.hard_bytes > free_bytes:
        return Finding("memory", WARNING, text, f"tensorrt.hard_bytes is {settings.hard_bytes // 2**20} MiB.")
    return Finding("memory", OK, text)


def _mps() -> Iterator[Finding]:
    running = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().startswith(MPS_CONTROL):
                running.append(entry.name)
        except OSError:
            continue
    if running:
        advice = "Tenants that share its server share faults: a sticky error hits all of them."
        yield Finding("MPS", WARNING, f"running: pid {', '.join(running)}", advice)
    else:
        yield Finding("MPS", OK, "not running")
    if not running and os.environ.get("CUDA_MPS_PIPE_DIRECTORY"):
        advice = "Unset it, or start nvidia-cuda-mps-control."
        yield Finding("MPS", WARNING, "CUDA_MPS_PIPE_DIRECTORY is set, and nobody serves it", advice)


def _packages(order: Order, has_device: bool) -> Iterator[Finding]:
    from trtd.runtime.tensorrt.loading import find_package

    flavour = Flavour(order.flavour)
    try:
        package = find_package(flavour, order.settings)
    except InvalidConfig as error:
        advice = "Install it, or name its place in tensorrt.package_path and tensorrt.library_path."
        yield Finding(str(flavour), PROBLEM, error.message, advice)
        return
    yield Finding(str(flavour), OK, f"{package.version} as {package.module.__name__} in {package.place}")
    if has_device:
        yield _start(order)
    for name, path in order.plans:
        yield _plan(name, path, order, package.version)


def _start(order: Order) -> Finding:
    from trtd.runtime import open_runtime

    try:
        open_runtime(order.flavour, threads=1, tensorrt=order.settings).close()
    except (TrtdError, ProcessFault) as error:
        return Finding(order.flavour, PROBLEM, f"it cannot be started: {error}", "See the message.")
    return Finding(order.flavour, OK, "it starts")


def _plan(name: str, path: str, order: Order, version: str) -> Finding:
    from trtd.runtime.tensorrt.loading import platform_tag

    flavour = Flavour(order.flavour)
    settings = order.settings
    installed = Installed(
        flavour, version, settings.allow_host_code, bool(settings.lean_library), platform_tag(flavour)
    )
    try:
        with open_regular(path) as file:
            plan = file.read()
        problem = incompatibility(read_header(plan), installed)
    except OSError as error:
        problem = error.strerror or str(error)
    except InvalidConfig as error:
        problem = error.message
    if problem is None:
        return Finding(f"plan {name}", OK, f"{path} can run here, as far as its header tells")
    return Finding(f"plan {name}", PROBLEM, f"{path}: {problem}", "Build it with this TensorRT, for this host.")


def main() -> None:
    """Read an order, write findings."""
    raw: dict[str, Any] = json.load(sys.stdin)
    plans = tuple((name, path) for name, path in raw["plans"])
    order = Order(raw["flavour"], TensorRTSettings(**raw["settings"]), plans)
    json.dump([asdict(finding) for finding in examine(order)], sys.stdout)


if __name__ == "__main__":
    main()
