"""The TensorRT runtime of one worker: opened in the order that keeps it from crashing, closed in the reverse one.

Driver before TensorRT (its first call segfaults without one), device before memory, memory before the runtime; recorder
and allocator are set once, before anything is deserialized.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from trtd.core.watermark import LedgerState, Watermarks
from trtd.engine.compatibility import Flavour, Installed
from trtd.errors import InvalidConfig
from trtd.observe import RateLimit, get_logger
from trtd.runtime import cuda
from trtd.runtime.injection import Injector
from trtd.runtime.protocol import RuntimeInfo
from trtd.runtime.tensorrt.allocator import make_allocator
from trtd.runtime.tensorrt.judge import judge
from trtd.runtime.tensorrt.loading import find_package, platform_tag
from trtd.runtime.tensorrt.memory import DeviceMemory
from trtd.runtime.tensorrt.model import TensorRTModel, load_model
from trtd.runtime.tensorrt.pinned import PinnedMemory
from trtd.runtime.tensorrt.pinner import Pinner
from trtd.runtime.tensorrt.plugins import register_plugins
from trtd.runtime.tensorrt.reconcile import Reconciler
from trtd.runtime.tensorrt.recorder import ErrorBook, make_logger, make_recorder
from trtd.runtime.tensorrt.scratch import ScratchPool
from trtd.runtime.tensorrt.session import Session
from trtd.runtime.tensorrt.staging import StagingPool
from trtd.runtime.tensorrt.throttle import Throttle
from trtd.wire.settings import ModelSettings
from trtd.wire.tensorrt import DeviceReport, TensorRTSettings

log = get_logger()

LEVELS = {
    "tensorrt.told": log.debug,
    "tensorrt.warned": log.warning,
    "device_memory.unknown": log.warning,
    "graph.capture_refused": log.warning,
    "arena.pin_refused": log.warning,
    "device_memory.level_changed": log.warning,
}

_parents: list[Any] = []
"""Runtimes that loaded another one. That works through them and does not keep them, its engines neither, and nobody
knows which engine goes last: they stay for as long as the process lives."""


FLOODS = {"device_memory.refused": "model", "tensorrt.error_reported": "text", "tensorrt.warned": "text"}
"""Events that each request may cause, and the field by which they are told apart: one a second of each is written."""
_floods = RateLimit(every_s=1.0)
_floods_lock = threading.Lock()


def tell(event: str, fields: dict[str, Any]) -> None:
    """One event to the log; what a callback of TensorRT may call, because the log neither blocks nor raises."""
    field = FLOODS.get(event)
    if field is not None:
        with _floods_lock:
            held_back = _floods.take(f"{event} {fields.get(field)}", time.monotonic())
        if held_back is None:
            return
        fields = {**fields, "held_back": held_back} if held_back else fields
    LEVELS.get(event, log.error)(event, **fields)


class TensorRTRuntime:
    """One flavour of TensorRT on one device."""

    def __init__(self, flavour: Flavour, settings: TensorRTSettings, slots: int) -> None:
        """Open device and TensorRT.

        Raises:
            trtd.errors.InvalidConfig: no driver, no device, no package, or a library that cannot be loaded.
            trtd.core.faults.ProcessFault: the device cannot be had at the moment.
        """
        self.device = cuda.open_device(settings.device, is_spinning=settings.is_spinning, is_lazy=settings.is_lazy)
        self._set_l2_apart(settings.persistent_l2_bytes, slots)
        self.package = find_package(flavour, settings)
        module = self.package.module
        watermarks = Watermarks(settings.soft_bytes, settings.hard_bytes)
        pool = cuda.MemoryPool(self.device.ordinal, settings.hard_bytes)
        self.memory = DeviceMemory(pool, watermarks, tell)
        self._book = ErrorBook()
        self._logger = make_logger(module, self._book, tell)
        self._recorder = make_recorder(module, self._book, tell)
        self._allocator = make_allocator(module, self.memory, tell_defect)
        self._runtime: Any = self._open(settings)
        self._injector: Injector | None = None
        self._reconciler = Reconciler(self.memory, settings, self.device.ordinal, tell)
        self._installed = Installed(
            flavour=flavour,
            version=self.package.version,
            allows_host_code=settings.allow_host_code,
            has_lean_library=bool(settings.lean_library),
            platform=platform_tag(flavour),
        )
        self._session = Session(
            module=module,
            settings=settings,
            slots=slots,
            device=self.device,
            memory=self.memory,
            allocator=self._allocator,
            scratch=ScratchPool(self.memory, slots),
            throttle=Throttle(lambda: self.memory.is_high),
            staging=StagingPool(settings.staging_bytes),
            pinned=PinnedMemory(self._register, self._unregister, tell),
            logger=self._logger,
            book=self._book,
            sink=tell,
            reconciler=self._reconciler,
            on_defect=tell_defect,
        )

        self._pinner = Pinner(self._session.pinned)

    @property
    def info(self) -> RuntimeInfo:
        """Flavour and version."""
        return RuntimeInfo(str(self.package.flavour), self.package.version)

    @property
    def staging_bytes(self) -> int:
        """Pinned host memory in use."""
        return self._session.staging.held_bytes

    def ledger(self) -> LedgerState:
        """The figures of the device memory that is ours."""
        return self.memory.state()

    def load(self, settings: ModelSettings) -> TensorRTModel:
        """Load a plan; see `trtd.runtime.protocol.Runtime.load`."""
        cuda.use_device(self.device.ordinal)
        return load_model(self._session, self._runtime, self._installed, settings)

    def device_memory(self) -> DeviceReport:
        """The ledger's figures and the driver's; see `trtd.runtime.protocol.Runtime.device_memory`."""
        return self._reconciler.report()

    def pin(self, memory: np.ndarray) -> None:
        """Let the device copy from it by itself; where that is refused, inputs in it are staged as others are."""
        self._pinner.pin(int(memory.ctypes.data), memory.nbytes)

    def unpin(self, memory: np.ndarray, then: Callable[[], None]) -> None:
        """The opposite of `pin`."""
        self._pinner.unpin(int(memory.ctypes.data), then)

    def make_fault(self, fault: str) -> None:
        """Make a fault in this process's context; see `trtd.runtime.protocol.Runtime.make_fault`."""
        try:
            cuda.use_device(self.device.ordinal)
            if self._injector is None:
                self._injector = Injector()
            self._injector.inject(fault)
        except cuda.CudaError as error:
            raise judge(error, [], f"injected fault {fault!r}") from error

    def close(self) -> None:
        """Release everything; what a model still holds goes with that model. Repeatable."""
        if self._runtime is not None:
            self._runtime = None
            self._pinner.close()
            self._reconciler.close()
            self.memory.close()

    def _register(self, address: int, size_bytes: int) -> str:
        try:
            cuda.use_device(self.device.ordinal)
            cuda.pin(address, size_bytes)
        except cuda.CudaError as error:
            # Where the process is lost, the next run will find it.
            cuda.forget_last_error()
            return str(error)
        return ""

    def _unregister(self, address: int) -> None:
        with contextlib.suppress(cuda.CudaError):
            cuda.use_device(self.device.ordinal)
            cuda.unpin(address)

    def _set_l2_apart(self, slot_bytes: int, slots: int) -> None:
        """As much as all slots together may have; TensorRT is told of each slot's part with its contexts."""
        most_bytes = self.device.persisting_l2_bytes
        if slot_bytes * slots > most_bytes:
            raise InvalidConfig(
                f"tensorrt.persistent_l2_bytes is {slot_bytes} for each of {slots} slots; this device sets apart "
                f"{most_bytes} in all"
            )
        if slot_bytes:
            cuda.set_persisting_l2(slot_bytes * slots)

    def _open(self, settings: TensorRTSettings) -> Any:
        module = self.package.module
        runtime = module.Runtime(self._logger)
        troubles = self._book.take()
        if runtime is None or troubles:
            raise InvalidConfig(f"{self.package.module.__name__} cannot be started: {'; '.join(troubles)}")
        register_plugins(module, self._logger, self._recorder, settings.plugin_libraries, self._book)
        self._prepare(runtime, settings)
        if not settings.lean_library:
            return runtime
        _parents.append(runtime)
        loaded = runtime.load_runtime(settings.lean_library)
        if loaded is None:
            texts = "; ".join(self._book.take())
            raise InvalidConfig(f"the lean library {settings.lean_library} cannot be loaded: {texts}")
        self._prepare(loaded, settings)
        return loaded

    def _prepare(self, runtime: Any, settings: TensorRTSettings) -> None:
        runtime.error_recorder = self._recorder
        runtime.gpu_allocator = self._allocator
        runtime.engine_host_code_allowed = settings.allow_host_code


def tell_defect(error: BaseException) -> None:
    """Something went wrong inside a callback, where nothing may be raised."""
    log.error("tensorrt.callback_failed", error=f"{type(error).__name__}: {error}")
