"""The ledger beside the driver: how much of the device this process uses that no allocator of ours ever saw.

A context, kernels and, with weight streaming, the weights themselves never pass the allocator. A thread of its own asks
the driver now and then; reports are made from what it last heard, so that nobody waits for a driver that blocks. Where
the driver does not tell, the verdict is "unknown", and the policy cannot be kept.
"""

from __future__ import annotations

import threading
from typing import Any

from trtd.core.watermark import Level
from trtd.runtime import cuda
from trtd.runtime.nvml import ProcessMemory
from trtd.runtime.tensorrt.memory import DeviceMemory
from trtd.runtime.tensorrt.recorder import Sink
from trtd.wire.tensorrt import DeviceReport, ModelMemory, TensorRTSettings

EVERY_S = 1.0
UNKNOWN = "unknown"
NOT_OURS = "NVML counts less for this process than its pool holds: the figure is another process's"


class Reconciler:
    """Knows the driver's figures of this process, at most `EVERY_S` old while the driver answers."""

    def __init__(self, memory: DeviceMemory, settings: TensorRTSettings, device: int, sink: Sink) -> None:
        self._memory = memory
        self._settings = settings
        self._device = device
        self._sink = sink
        self._pool_bytes = 0
        self._driver_bytes: int | None = None
        self._was_over = False
        self._verdict = UNKNOWN
        self._told_cause = ""
        self._end = threading.Event()
        self._has_looked = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="reconciler", daemon=True)
        self._thread.start()

    @property
    def is_admitting(self) -> bool:
        """Whether new work may be taken."""
        return self._verdict != "stop_admitting"

    def first_unaccounted_bytes(self) -> int:
        """`unaccounted_bytes`, waited for a moment where the driver was not asked yet; 0 where nothing is known."""
        self._has_looked.wait(EVERY_S)
        return self.unaccounted_bytes or 0

    @property
    def unaccounted_bytes(self) -> int | None:
        """What the driver counts beside the pool; None where it says nothing."""
        driver_bytes = self._driver_bytes
        return None if driver_bytes is None else max(0, driver_bytes - self._pool_bytes)

    def report(self) -> DeviceReport:
        """All figures; safe in any thread, and never waits for the device."""
        state = self._memory.state()
        return DeviceReport(
            live_bytes=state.live_bytes,
            peak_bytes=state.peak_bytes,
            hard_bytes=self._memory.hard_bytes,
            refused_count=state.refused_count,
            refused_bytes=state.refused_bytes,
            is_high=state.level is Level.HIGH,
            is_hard_derived=self._memory.is_hard_derived,
            allocations=state.allocations,
            allocated_bytes=state.allocated_bytes,
            largest_bytes=state.largest_bytes,
            models=tuple(
                ModelMemory(
                    one.owner,
                    one.live_bytes,
                    one.allocations,
                    one.allocated_bytes,
                    one.largest_bytes,
                    one.refused_count,
                )
                for one in state.owners
                if one.owner
            ),
            pool_bytes=self._pool_bytes,
            driver_bytes=self._driver_bytes,
            unaccounted_bytes=self.unaccounted_bytes,
            verdict=self._verdict,
        )

    def look(self, driver: ProcessMemory) -> None:
        """Ask the driver once. Only two looks in a row that find too much have consequences.

        Raises:
            trtd.runtime.cuda.CudaError: the device is not sound.
        """
        before = self._memory.pool_bytes()[1]
        driver_bytes = driver.read()
        after = self._memory.pool_bytes()[1]
        # The pool may have grown or given back in between: the larger figure accuses nobody wrongly.
        self._pool_bytes = max(before, after)
        if driver_bytes is not None and driver_bytes < min(before, after):
            self._note_unknown(NOT_OURS)
        elif driver_bytes is None:
            self._note_unknown(driver.cause)
        else:
            self._told_cause = ""
            self._driver_bytes = driver_bytes
            limit = self._settings.unaccounted_bytes
            is_over = bool(limit) and driver_bytes - self._pool_bytes > limit
            self._settle(self._settings.on_unaccounted if is_over and self._was_over else "ok")
            self._was_over = is_over

    def _note_unknown(self, cause: str) -> None:
        """The driver does not tell: say so once for each cause, and keep to no figure of the past."""
        self._driver_bytes = None
        self._was_over = False
        self._verdict = UNKNOWN
        if cause != self._told_cause:
            self._told_cause = cause
            self._sink("device_memory.unknown", {"cause": cause})

    def _settle(self, verdict: str) -> None:
        if verdict == self._verdict:
            return
        was_known = self._verdict != UNKNOWN
        self._verdict = verdict
        if was_known or verdict != "ok":
            fields: dict[str, Any] = {"unaccounted_bytes": self.unaccounted_bytes, "verdict": verdict}
            self._sink("device_memory.reconciled", {**fields, "limit_bytes": self._settings.unaccounted_bytes})

    def close(self) -> None:
        """Ask no more."""
        self._end.set()
        self._thread.join(EVERY_S)

    def _watch(self) -> None:
        try:
            cuda.use_device(self._device)
            driver = ProcessMemory(self._device)
            while not self._end.is_set():
                self.look(driver)
                self._has_looked.set()
                self._end.wait(EVERY_S)
        except cuda.CudaError as error:
            # The slots find out by themselves, and say so.
            self._note_unknown(str(error))
