"""What all models and slots of one worker share: the TensorRT module, the device, its memory, and where events go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from trtd.runtime.cuda import DeviceInfo
from trtd.runtime.tensorrt.memory import DeviceMemory
from trtd.runtime.tensorrt.pinned import PinnedMemory
from trtd.runtime.tensorrt.reconcile import Reconciler
from trtd.runtime.tensorrt.recorder import ErrorBook, Sink
from trtd.runtime.tensorrt.scratch import ScratchPool
from trtd.runtime.tensorrt.staging import StagingPool
from trtd.runtime.tensorrt.throttle import Throttle
from trtd.wire.tensorrt import TensorRTSettings


@dataclass(frozen=True, slots=True)
class Session:
    """See above.

    Attributes:
        module: TensorRT.
        settings: as the tenant's configuration says.
        slots: batches run at a time.
        device: the GPU.
        memory: all device memory that is ours.
        allocator: TensorRT's view of it.
        scratch: what loaded models are promised, and scratch memory of each thread.
        throttle: lets slots take turns above the soft watermark.
        staging: pinned host memory.
        pinned: shared memory of clients that is pinned, too.
        logger: TensorRT's, for what is made with one.
        book: what the runtime's own recorder and logger were told.
        sink: takes events for the log.
        reconciler: knows whether new work may be taken.
        on_defect: takes what would have been raised into native code.
        alone: held while a graph is captured, and while something is made that might touch the whole device or report
            to the book that all share. Nobody waits for the device meanwhile.
    """

    module: ModuleType
    settings: TensorRTSettings
    slots: int
    device: DeviceInfo
    memory: DeviceMemory
    allocator: Any
    scratch: ScratchPool
    throttle: Throttle
    staging: StagingPool
    pinned: PinnedMemory
    logger: Any
    book: ErrorBook
    sink: Sink
    reconciler: Reconciler
    on_defect: Callable[[BaseException], None]
    alone: threading.Lock = field(default_factory=threading.Lock)
