"""Real faults in this process's CUDA context, made through the driver: for tests and for drills, where allowed.

Each kernel does what its name says on the device, so that everything behind it (driver, TensorRT, probe, supervisor)
sees what it would see of a model that does so. Who may ask for it is decided by the configuration and the worker.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from cuda.bindings import driver

from trtd.errors import OutOfMemory, Usage
from trtd.runtime import cuda
from trtd.runtime.cuda import CudaError
from trtd.wire.tensorrt import FAULTS

IMPOSSIBLE_BYTES = 1 << 44
FILLING_THREADS = 1024
FILLING_BLOCKS = 132 * 16
"""Enough to leave no multiprocessor of today's largest devices free."""

PTX = b"""
.version 7.0
.target sm_52
.address_size 64
.extern .func __assertfail
(.param .b64 message, .param .b64 file, .param .b32 line, .param .b64 function, .param .b64 size);
.global .align 1 .b8 told[16] = {105,110,106,101,99,116,101,100,0,0,0,0,0,0,0,0};

.visible .entry illegal_address(.param .u64 unused)
{
    .reg .b64 %a; .reg .b32 %v;
    mov.u64 %a, 8; mov.u32 %v, 1;
    st.global.u32 [%a], %v;
    ret;
}
.visible .entry trap(.param .u64 unused)
{
    trap;
    ret;
}
.visible .entry misaligned_access(.param .u64 memory)
{
    .reg .b64 %a; .reg .b32 %v;
    ld.param.u64 %a, [memory];
    add.u64 %a, %a, 1; mov.u32 %v, 1;
    st.global.u32 [%a], %v;
    ret;
}
.visible .entry device_assert(.param .u64 unused)
{
    .reg .b64 %t; .reg .b64 %g; .reg .b64 %n; .reg .b32 %l;
    mov.u64 %t, told; cvta.global.u64 %g, %t; mov.u32 %l, 1; mov.u64 %n, 1;
    {
        .param .b64 p0; .param .b64 p1; .param .b32 p2; .param .b64 p3; .param .b64 p4;
        st.param.b64 [p0+0], %g; st.param.b64 [p1+0], %g; st.param.b32 [p2+0], %l;
        st.param.b64 [p3+0], %g; st.param.b64 [p4+0], %n;
        call.uni __assertfail, (p0, p1, p2, p3, p4);
    }
    ret;
}
.visible .entry endless_kernel(.param .u64 flag)
{
    .reg .b64 %a; .reg .b32 %v; .reg .pred %p;
    ld.param.u64 %a, [flag];
again:
    ld.volatile.u32 %v, [%a];
    setp.eq.u32 %p, %v, 0;
    @%p bra again;
    ret;
}
"""


class Injector:
    """Makes faults in the context of this process's device."""

    def __init__(self) -> None:
        """Load the kernels.

        Raises:
            trtd.runtime.cuda.CudaError: the context is not sound.
        """
        self._module = cuda.call(driver.cuModuleLoadData, PTX + b"\0")
        self._stream = cuda.Stream()
        # Also the memory of the misaligned access: the device reads and writes it where it lies.
        self._flag = cuda.PinnedBuffer(64)
        self._flag.bytes[:] = 0

    def inject(self, fault: str) -> None:
        """Make a fault, and return when the device has shown it; at once for the endless kernel.

        Args:
            fault: one of `FAULTS`.

        Raises:
            trtd.runtime.cuda.CudaError: the fault, as its kernel's end shows it.
            trtd.errors.OutOfMemory: for `out_of_memory`; the process is sound.
            trtd.errors.Usage: there is no such fault.
        """
        if fault not in FAULTS:
            raise Usage(f"unknown fault {fault!r}; there are: {', '.join(FAULTS)}")
        if fault == "out_of_memory":
            self._ask_for_too_much()
        elif fault == "end_endless_kernel":
            self._flag.bytes.view(np.uint32)[0] = 1
            self._stream.synchronize()
        elif fault == "endless_kernel":
            self._flag.bytes.view(np.uint32)[0] = 0
            self._launch(fault, FILLING_BLOCKS, FILLING_THREADS)
        else:
            self._launch(fault, 1, 1)
            self._stream.synchronize()

    def run_nothing(self) -> None:
        """A kernel that ends at once: whether kernels run at all.

        Raises:
            trtd.runtime.cuda.CudaError: they do not.
        """
        self._flag.bytes.view(np.uint32)[0] = 1
        self._launch("endless_kernel", 1, 1)
        self._stream.synchronize()

    def _launch(self, name: str, blocks: int, threads: int) -> None:
        function = cuda.call(driver.cuModuleGetFunction, self._module, name.encode())
        value = ctypes.c_uint64(self._flag.address)
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(value))
        shape: tuple[Any, ...] = (blocks, 1, 1, threads, 1, 1)
        stream = driver.CUstream(self._stream.number)
        cuda.call(driver.cuLaunchKernel, function, *shape, 0, stream, ctypes.addressof(arguments), 0)

    @staticmethod
    def _ask_for_too_much() -> None:
        try:
            cuda.call(driver.cuMemAlloc, IMPOSSIBLE_BYTES)
        except CudaError as error:
            raise OutOfMemory(f"injected: {error}") from error
