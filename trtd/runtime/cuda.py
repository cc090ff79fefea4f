"""The one way to CUDA: every call goes through `call`, which turns a code into an error that knows what it means.

Covers device, streams, events, pinned memory, the capped memory pool, graphs and the probe that tells a lost context
from a failed call. What codes mean is in `trtd.core.cuda_faults`; what follows, `trtd.runtime.tensorrt.judge` decides.

Handles are kept as the bindings give them and passed to TensorRT as plain integers. `cudaGetLastError` is never asked
whether the context lives: after a sticky error it says 0 while every call fails.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cuda.bindings import driver
from cuda.bindings import runtime as cudart

from trtd.core.cuda_faults import NOT_READY, CudaClass, lookup, opening_fault
from trtd.core.faults import ProcessFault
from trtd.errors import InvalidConfig, OutOfMemory
from trtd.runtime.naps import SPIN_S, Naps

POOL_GRANULE_BYTES = 32 * 1024 * 1024
"""The driver grows pools by blocks of this size; a cap between two of them would refuse what the ledger allows."""
PROBE_BYTES = 16
KEEP_ALL = 2**64 - 1


class CudaError(Exception):
    """A CUDA call failed.

    Attributes:
        code: as CUDA gave it.
        call: which function.
    """

    def __init__(self, code: int, call: str) -> None:
        self.code = code
        self.call = call
        super().__init__(f"{call}: CUDA error {code} ({lookup(code).name})")

    @property
    def kind(self) -> CudaClass:
        """What follows from the code."""
        return lookup(self.code).kind


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of the bindings and return what it gives beside its code.

    Raises:
        CudaError: the code was not success. A code that is newer than the bindings counts as unknown, hence as sticky.
    """
    try:
        code, *values = function(*args)
    except ValueError as error:
        # The bindings cannot even make their enum of a code that is newer than they are.
        raise CudaError(_number_in(str(error)), function.__name__) from error
    number = int(code)
    if number:
        raise CudaError(number, function.__name__)
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)


def _number_in(text: str) -> int:
    digits = text.partition(" ")[0]
    return int(digits) if digits.isdigit() else 999


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """The device that a process works on.

    Attributes:
        ordinal: among those that the process sees.
        name: NVIDIA's.
        compute_capability: major and minor.
        total_bytes: its memory.
        driver_version: the newest CUDA that the driver supports, such as 13000.
        persisting_l2_bytes: most L2 that can be set apart.
    """

    ordinal: int
    name: str
    compute_capability: tuple[int, int]
    total_bytes: int
    driver_version: int
    persisting_l2_bytes: int


def open_device(ordinal: int, *, is_spinning: bool, is_lazy: bool) -> DeviceInfo:
    """Check the driver, then make this device's primary context and let the calling thread use it.

    Args:
        ordinal: among the devices that this process sees.
        is_spinning: whether waiting threads burn their core, for the last microseconds of latency.
        is_lazy: whether kernels are loaded when they are first used.

    Raises:
        trtd.errors.InvalidConfig: there is no driver or no such device.
        trtd.errors.OutOfMemory: others have left it no memory.
        trtd.core.faults.ProcessFault: the device cannot be had at the moment; it says what is awaited, where that is
            known.
    """
    # Read by the driver at cuInit, and never again.
    os.environ["CUDA_MODULE_LOADING"] = "LAZY" if is_lazy else "EAGER"
    try:
        call(driver.cuInit, 0)
        count = call(cudart.cudaGetDeviceCount)
        if ordinal >= count:
            raise InvalidConfig(f"tensorrt.device is {ordinal}; this process sees {count} devices")
        flags = cudart.cudaDeviceScheduleSpin if is_spinning else cudart.cudaDeviceScheduleBlockingSync
        call(cudart.cudaInitDevice, ordinal, flags, cudart.cudaInitDeviceFlagsAreValid)
        call(cudart.cudaSetDevice, ordinal)
        call(cudart.cudaFree, 0)
        if ordinal not in _probes:
            _probes[ordinal] = _Probe()
        return _describe(ordinal)
    except CudaError as error:
        if error.kind is CudaClass.ABSENT:
            raise InvalidConfig(f"no usable NVIDIA driver or device: {error}") from error
        if error.kind is CudaClass.MEMORY:
            raise OutOfMemory(f"device {ordinal} has no room for a context: {error}") from error
        raise ProcessFault(opening_fault(error.code, f"opening device {ordinal}")) from error
    except RuntimeError as error:
        # The bindings' way to say that there is no libcuda at all.
        raise InvalidConfig("there is no NVIDIA driver on this host (libcuda is not installed)") from error


def _describe(ordinal: int) -> DeviceInfo:
    properties = call(cudart.cudaGetDeviceProperties, ordinal)
    name = properties.name
    return DeviceInfo(
        ordinal=ordinal,
        name=name.decode("ascii", "replace").rstrip("\0") if isinstance(name, bytes) else str(name),
        compute_capability=(properties.major, properties.minor),
        total_bytes=properties.totalGlobalMem,
        driver_version=call(cudart.cudaDriverGetVersion),
        persisting_l2_bytes=properties.persistingL2CacheMaxSize,
    )


def device_names(ordinal: int) -> tuple[str, str]:
    """NVIDIA's lasting name of a device, as NVML takes it: for a whole GPU, and for a MIG instance.

    CUDA gives the number alone, which is the instance's where a process sees one.
    """
    raw = bytes(call(cudart.cudaGetDeviceProperties, ordinal).uuid.bytes).hex()
    number = f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:32]}"
    return f"GPU-{number}", f"MIG-{number}"


def set_persisting_l2(size_bytes: int) -> None:
    """Set L2 apart for accesses that ask for it, in this process's context. The driver rounds as it likes."""
    call(cudart.cudaDeviceSetLimit, cudart.cudaLimit.cudaLimitPersistingL2CacheSize, size_bytes)


def use_device(ordinal: int) -> None:
    """Let the calling thread use the device; each thread has to say so once."""
    call(cudart.cudaSetDevice, ordinal)


def memory_info() -> tuple[int, int]:
    """Free and total bytes of the device. Others allocate on it, too: a figure of the past."""
    free, total = call(cudart.cudaMemGetInfo)
    return int(free), int(total)


class _Probe:
    """What `probe` works with, had before it is needed: a process that is short of memory is probed as well."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.address = call(cudart.cudaMalloc, PROBE_BYTES)


_probes: dict[int, _Probe] = {}
"""By device; kept for as long as the process lives."""


def probe(stream: Stream | None = None) -> int:
    """Whether this process can still work: 0, else the code of the first call that failed.

    Waits for the given stream and one of its own, never for the device: who does that, or frees memory, while another
    thread captures a graph is refused with 900 and ends that capture as well. It waits as long as a kernel on the
    stream runs; who cannot have that watches from outside.

    Args:
        stream: on which the failed work was; what was done on it before is known to have ended afterwards.
    """
    try:
        if stream is not None:
            stream.synchronize()
        device = call(cudart.cudaGetDevice)
        own = _probes.get(device) or _probes.setdefault(device, _Probe())
        call(cudart.cudaMemsetAsync, own.address, 0, PROBE_BYTES, own.stream.handle)
        own.stream.synchronize()
    except CudaError as error:
        # A refusal after which a process can go on says nothing about the context, which answered.
        return 0 if error.kind in (CudaClass.MEMORY, CudaClass.SOUND) else error.code
    return 0


def forget_last_error() -> None:
    """Clear what the last failed call left behind, so that a later one is not taken for it."""
    cudart.cudaGetLastError()
    cudart.cudaGetLastError()


class Stream:
    """A stream that does not wait for the legacy default stream."""

    def __init__(self, priority: int = 0) -> None:
        """Make it.

        Args:
            priority: as CUDA counts: lower numbers come first; out of range values are clamped by the driver.
        """
        self.handle = call(cudart.cudaStreamCreateWithPriority, cudart.cudaStreamNonBlocking, priority)
        self.number = int(self.handle)

    def synchronize(self) -> None:
        """Wait for everything on it."""
        call(cudart.cudaStreamSynchronize, self.handle)

    def close(self) -> None:
        """Give it back."""
        call(cudart.cudaStreamDestroy, self.handle)


class Event:
    """A point on a stream that a thread can wait for: spinning, or asleep for most of the time."""

    def __init__(self, *, is_spinning: bool) -> None:
        self._is_spinning = is_spinning
        self._naps = Naps()
        flags = cudart.cudaEventDisableTiming | (0 if is_spinning else cudart.cudaEventBlockingSync)
        self._handle = call(cudart.cudaEventCreateWithFlags, flags)

    def wait_for(self, stream: Stream) -> None:
        """Wait until all that is on the stream now has run. Errors of that work surface here."""
        call(cudart.cudaEventRecord, self._handle, stream.handle)
        if self._is_spinning:
            call(cudart.cudaEventSynchronize, self._handle)
            return
        began_at = time.perf_counter()
        nap_s = self._naps.nap_s
        if nap_s:
            time.sleep(nap_s)
        if not self._comes_soon():
            call(cudart.cudaEventSynchronize, self._handle)
        self._naps.note(time.perf_counter() - began_at)

    def _comes_soon(self) -> bool:
        until = time.perf_counter() + SPIN_S
        while time.perf_counter() < until:
            code = int(cudart.cudaEventQuery(self._handle)[0])
            if code != NOT_READY:
                if code:
                    raise CudaError(code, "cudaEventQuery")
                return True
        return False

    def close(self) -> None:
        """Give it back."""
        call(cudart.cudaEventDestroy, self._handle)


class PinnedBuffer:
    """Host memory that the device copies from and to by itself."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.address = int(call(cudart.cudaHostAlloc, size_bytes, cudart.cudaHostAllocPortable))
        memory = (ctypes.c_uint8 * size_bytes).from_address(self.address)
        self.bytes: np.ndarray = np.frombuffer(memoryview(memory), np.uint8)

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """An array in it; valid until `close`."""
        size_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        return self.bytes[offset : offset + size_bytes].view(dtype).reshape(shape)

    def close(self) -> None:
        """Give it back; no view may be used afterwards."""
        if self.address:
            call(cudart.cudaFreeHost, self.address)
            self.address = 0


def pin(address: int, size_bytes: int) -> None:
    """Let the device copy from and to this memory by itself, in every context; whole pages only."""
    call(cudart.cudaHostRegister, address, size_bytes, cudart.cudaHostRegisterPortable)


def unpin(address: int) -> None:
    """The opposite of `pin`; no copy may be under way."""
    call(cudart.cudaHostUnregister, address)


class MemoryPool:
    """A pool of device memory with a cap that the driver enforces, whatever a ledger above it believes."""

    def __init__(self, device: int, cap_bytes: int) -> None:
        """Make it.

        Args:
            device: where.
            cap_bytes: most bytes, rounded up to the driver's granule; 0 for no cap.
        """
        properties = cudart.cudaMemPoolProps()
        properties.allocType = cudart.cudaMemAllocationType.cudaMemAllocationTypePinned
        properties.location.type = cudart.cudaMemLocationType.cudaMemLocationTypeDevice
        properties.location.id = device
        granules = -(-cap_bytes // POOL_GRANULE_BYTES)
        properties.maxSize = granules * POOL_GRANULE_BYTES
        self.cap_bytes = granules * POOL_GRANULE_BYTES
        self._pool = call(cudart.cudaMemPoolCreate, properties)
        threshold = cudart.cudaMemPoolAttr.cudaMemPoolAttrReleaseThreshold
        # Kept until `trim`, or every synchronisation would give memory back that the next enqueue wants again.
        call(cudart.cudaMemPoolSetAttribute, self._pool, threshold, driver.cuuint64_t(KEEP_ALL))

    def allocate(self, size_bytes: int, stream: Any) -> int:
        """An address, usable by what follows on the stream.

        Raises:
            CudaError: MEMORY, or worse.
        """
        return int(call(cudart.cudaMallocFromPoolAsync, size_bytes, self._pool, stream))

    def free(self, address: int, stream: Any) -> None:
        """Give an address back once the stream has come so far."""
        call(cudart.cudaFreeAsync, address, stream)

    def used_bytes(self) -> tuple[int, int]:
        """Bytes in use and bytes reserved of the device."""
        attributes = cudart.cudaMemPoolAttr
        used = call(cudart.cudaMemPoolGetAttribute, self._pool, attributes.cudaMemPoolAttrUsedMemCurrent)
        reserved = call(cudart.cudaMemPoolGetAttribute, self._pool, attributes.cudaMemPoolAttrReservedMemCurrent)
        return int(used), int(reserved)

    def trim(self) -> None:
        """Give back to the device what is not in use."""
        call(cudart.cudaMemPoolTrimTo, self._pool, 0)

    def close(self) -> None:
        """Give the pool back; what is still in use of it stays until it is freed."""
        call(cudart.cudaMemPoolDestroy, self._pool)


class Graph:
    """Work that was captured from a stream once and is launched as a whole."""

    def __init__(self, stream: Stream, work: Callable[[], None]) -> None:
        """Capture what `work` puts on the stream.

        Raises:
            CudaError: it cannot be captured; the stream is as before.
        """
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(cudart.cudaStreamBeginCapture, stream.handle, mode)
        try:
            work()
        except BaseException:
            # The capture has to be ended, whatever it gives; what was captured so far is no run.
            _, begun = cudart.cudaStreamEndCapture(stream.handle)
            if begun is not None:
                cudart.cudaGraphDestroy(begun)
            forget_last_error()
            raise
        try:
            graph = call(cudart.cudaStreamEndCapture, stream.handle)
        except CudaError:
            forget_last_error()
            raise
        try:
            self._executable = call(cudart.cudaGraphInstantiate, graph, 0)
        finally:
            call(cudart.cudaGraphDestroy, graph)

    def launch(self, stream: Stream) -> None:
        """Put it on the stream; one launch at a time."""
        call(cudart.cudaGraphLaunch, self._executable, stream.handle)

    def close(self) -> None:
        """Give it back."""
        call(cudart.cudaGraphExecDestroy, self._executable)


def copy_to_device(device_address: int, host_address: int, size_bytes: int, stream: Stream) -> None:
    """Start a copy from pinned memory."""
    kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
    call(cudart.cudaMemcpyAsync, device_address, host_address, size_bytes, kind, stream.handle)


def copy_to_host(host_address: int, device_address: int, size_bytes: int, stream: Stream) -> None:
    """Start a copy into pinned memory."""
    kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
    call(cudart.cudaMemcpyAsync, host_address, device_address, size_bytes, kind, stream.handle)
