"""What the driver says that this process uses of its device: the truth beside the ledger.

NVML may block for long when a GPU is ill, so only a thread that nobody waits for may ask.
"""

from __future__ import annotations

import os
from typing import Any

from trtd.runtime.cuda import device_uuid


class ProcessMemory:
    """Asks for the device memory of this process; says 0 where nobody can tell."""

    def __init__(self, device: int) -> None:
        self._nvml: Any = None
        try:
            import pynvml

            pynvml.nvmlInit()
            self._device = pynvml.nvmlDeviceGetHandleByUUID(device_uuid(device))
            self._nvml = pynvml
        except (ImportError, OSError):
            return
        except Exception as error:
            # pynvml has a class for each code and raises them from one that cannot be named without it.
            if type(error).__module__ != "pynvml":
                raise

    def read(self) -> int:
        """Bytes, as the driver counts them now."""
        if self._nvml is None:
            return 0
        try:
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._device)
        except self._nvml.NVMLError:
            return 0
        own = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        return sum(size_bytes or 0 for size_bytes in own)
