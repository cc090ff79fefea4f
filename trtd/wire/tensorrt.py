"""What a worker is told of TensorRT and its device, and what it tells of the device's memory."""

from __future__ import annotations

from dataclasses import dataclass

FAULTS = (
    "illegal_address",
    "trap",
    "misaligned_access",
    "device_assert",
    "out_of_memory",
    "endless_kernel",
    "end_endless_kernel",
)
"""Faults that can be made in a worker's context on purpose; the last one ends the one before it."""


@dataclass(frozen=True, slots=True)
class TensorRTSettings:
    """TensorRT as one tenant's workers use it.

    Attributes:
        package_path: directory that holds the Python package; empty for the import path as it is.
        library_path: directory of TensorRT's libraries; empty for the loader's own search.
        lean_library: path of a lean library for the dispatch runtime; empty for none.
        plugin_libraries: paths of libraries with plugins of the operator's own.
        allow_host_code: whether code inside a plan may run on the host.
        device: ordinal among the devices that the worker sees.
        soft_bytes: soft watermark of device memory; 0 for none.
        hard_bytes: hard watermark; 0 derives one from what the models need.
        overhead_bytes: what the driver is expected to take beside the ledger.
        unaccounted_bytes: unaccounted device memory above which `on_unaccounted` applies; 0 for none.
        on_unaccounted: `warn`, `stop_admitting` or `restart`.
        staging_bytes: most pinned host memory of one worker.
        is_spinning: whether waiting threads burn their core.
        max_graphs: most CUDA graphs of one slot and model; 0 for none.
        is_lazy: whether kernels are loaded when they are first used.
        streamed_weights_bytes: budget of weights that stay on the device, for plans built for streaming; -1 for all.
        persistent_l2_bytes: L2 that the contexts of one slot may set apart, of all its models together.
        stream_priority: of the slots' streams; lower comes first.
    """

    package_path: str = ""
    library_path: str = ""
    lean_library: str = ""
    plugin_libraries: tuple[str, ...] = ()
    allow_host_code: bool = False
    device: int = 0
    soft_bytes: int = 0
    hard_bytes: int = 0
    overhead_bytes: int = 0
    unaccounted_bytes: int = 0
    on_unaccounted: str = "warn"
    staging_bytes: int = 0
    is_spinning: bool = False
    max_graphs: int = 32
    is_lazy: bool = True
    streamed_weights_bytes: int = -1
    persistent_l2_bytes: int = 0
    stream_priority: int = 0


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """What one model of a worker has of the ledger.

    Attributes:
        model: name and version.
        live_bytes: held now.
        allocations: made since the worker's start. allocated_bytes: their sum. largest_bytes: the largest of them.
        refused_count: allocations refused.
    """

    model: str
    live_bytes: int
    allocations: int
    allocated_bytes: int
    largest_bytes: int
    refused_count: int


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """A worker's device memory, side by side as trtd counts it and as the driver does.

    Attributes:
        live_bytes: held by the ledger.
        peak_bytes: highest so far.
        hard_bytes: hard watermark in force; 0 for none.
        refused_count: allocations refused.
        refused_bytes: their sum.
        is_high: whether the soft watermark was passed.
        pool_bytes: reserved by the driver's pool under the ledger.
        driver_bytes: of the whole process, as the driver says; None where it does not.
        unaccounted_bytes: of these, what the pool does not hold (context, kernels, streamed weights); None likewise.
        verdict: `ok`, or what is done about the unaccounted bytes: `warn`, `stop_admitting`, `restart`; `unknown` where
            the driver does not say, so that no policy can be kept.
        is_hard_derived: whether the watermark follows from what the models need, because none is configured.
        allocations: made since the start. allocated_bytes: their sum. largest_bytes: the largest of them.
        models: those that ever allocated, by name.
    """

    live_bytes: int
    peak_bytes: int
    hard_bytes: int
    refused_count: int
    refused_bytes: int
    is_high: bool
    pool_bytes: int
    driver_bytes: int | None
    unaccounted_bytes: int | None
    verdict: str
    is_hard_derived: bool = False
    allocations: int = 0
    allocated_bytes: int = 0
    largest_bytes: int = 0
    models: tuple[ModelMemory, ...] = ()
