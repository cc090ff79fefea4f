"""What the driver says that this process uses of its device: the truth beside the ledger, where it tells it.

It does not tell everybody: NVML has no figure for a process in another pid namespace, may have none for a client of MPS
or on a MIG instance, and is not installed everywhere. Then nothing is known, which is not the same as nothing used.

NVML may block for long when a GPU is ill, so only a thread that nobody waits for may ask.
"""

from __future__ import annotations

import os
from typing import Any

from trtd.runtime.cuda import device_names

NOT_INSTALLED = "NVML is not there: nvidia-ml-py or libnvidia-ml is missing"
NOT_LISTED = "NVML does not list this process: it is in another pid namespace, or a client of MPS"
NO_FIGURE = "NVML lists this process without a figure, as it does for some clients of MPS and on MIG instances"


class ProcessMemory:
    """Asks for the device memory of this process.

    Attributes:
        cause: why nothing is known; empty where the last answer was a figure.
    """

    def __init__(self, device: int) -> None:
        """Find the device, or the MIG instance, that CUDA calls by this ordinal."""
        self.cause = NOT_INSTALLED
        self._nvml: Any = None
        try:
            import pynvml

            pynvml.nvmlInit()
            self._device = find_device(pynvml, device_names(device))
            self._nvml = pynvml
        except (ImportError, OSError):
            return
        except Exception as error:
            # pynvml has a class for each code and raises them from one that cannot be named without it.
            if type(error).__module__ != "pynvml":
                raise
            self.cause = f"NVML does not know the device: {error}"

    def read(self) -> int | None:
        """Bytes, as the driver counts them now; None where it does not say."""
        if self._nvml is None:
            return None
        nvml = self._nvml
        try:
            own = _own(nvml.nvmlDeviceGetComputeRunningProcesses(self._device))
            if not own:
                own = _own(nvml.nvmlDeviceGetMPSComputeRunningProcesses(self._device))
        except nvml.NVMLError as error:
            self.cause = f"NVML does not list the device's processes: {error}"
            return None
        sizes: list[int | None] = [process.usedGpuMemory for process in own]
        if not own or None in sizes:
            self.cause = NO_FIGURE if own else NOT_LISTED
            return None
        self.cause = ""
        return sum(size_bytes or 0 for size_bytes in sizes)


def find_device(nvml: Any, names: tuple[str, ...]) -> Any:
    """NVML's handle of the first of these names that it knows.

    Raises:
        pynvml.NVMLError: it knows none of them.
    """
    *others, last = names
    for name in others:
        try:
            return nvml.nvmlDeviceGetHandleByUUID(name)
        except nvml.NVMLError_NotFound:
            continue
    return nvml.nvmlDeviceGetHandleByUUID(last)


def _own(processes: list[Any]) -> list[Any]:
    return [process for process in processes if process.pid == os.getpid()]
