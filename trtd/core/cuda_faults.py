"""What a CUDA code or a text of TensorRT means: its name, whether the process is lost with it, and who pays.

Tables and parsing only; who makes the calls and probes the device is in `trtd.runtime.cuda`. TensorRT's own error enum
is not looked at: any CUDA failure arrives as UNSPECIFIED_ERROR, and out of memory as INTERNAL_ERROR. Its texts and the
probe decide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from trtd.core.faults import Fault, FaultDomain, FaultKind
from trtd.errors import Blame

OUT_OF_MEMORY = 2
NOT_READY = 600
UNKNOWN_CODE = 999
MAX_TEXTS = 4
"""Texts of TensorRT that a fault keeps: the first ones, since what follows is said of calls that fail because of it."""


class CudaClass(StrEnum):
    """What follows from a code."""

    SOUND = "sound"
    """The call failed; the process can go on."""
    MEMORY = "memory"
    """Memory did not suffice; the process can go on."""
    STICKY = "sticky"
    """Every later call of this process fails: it has to leave."""
    AWAITED = "awaited"
    """Expected to come by itself: worth another process a little later. After a good start it is like STICKY."""
    ABSENT = "absent"
    """No usable driver or device: this host cannot run it until somebody changes that."""


@dataclass(frozen=True, slots=True)
class CudaCode:
    """One code of the CUDA runtime or driver, which share their numbers where it matters here.

    Attributes:
        code: the number.
        name: NVIDIA's, without its prefix.
        kind: what follows.
        blame: who pays.
        domain: what may share the damage.
    """

    code: int
    name: str
    kind: CudaClass
    blame: Blame = Blame.TENANT
    domain: FaultDomain = FaultDomain.PROCESS

    @property
    def is_sticky(self) -> bool:
        """Whether the process is lost."""
        return self.kind in {CudaClass.STICKY, CudaClass.AWAITED}


def _codes(kind: CudaClass, names: dict[int, str], blame: Blame, domain: FaultDomain) -> dict[int, CudaCode]:
    return {code: CudaCode(code, name, kind, blame, domain) for code, name in names.items()}


CODES: dict[int, CudaCode] = {
    # The tenant's own work did it, and its process alone is hit; under MPS the supervisor widens the domain.
    **_codes(
        CudaClass.STICKY,
        {
            700: "IllegalAddress",
            702: "LaunchTimeout",
            709: "ContextIsDestroyed",
            710: "Assert",
            714: "HardwareStackError",
            715: "IllegalInstruction",
            716: "MisalignedAddress",
            717: "InvalidAddressSpace",
            718: "InvalidPc",
            719: "LaunchFailure",
            721: "TensorMemoryLeak",
            911: "ExternalDevice",
            999: "Unknown",
        },
        Blame.TENANT,
        FaultDomain.PROCESS,
    ),
    # Somebody who shares an MPS server did it, or its server.
    **_codes(
        CudaClass.STICKY,
        {805: "MpsConnectionFailed", 806: "MpsRpcFailure", 810: "MpsClientTerminated"},
        Blame.DEVICE,
        FaultDomain.SHARING,
    ),
    **_codes(
        CudaClass.AWAITED,
        {807: "MpsServerNotReady", 808: "MpsMaxClientsReached", 809: "MpsMaxConnectionsReached"},
        Blame.DEVICE,
        FaultDomain.SHARING,
    ),
    # The device is ill, or was lost.
    **_codes(
        CudaClass.STICKY,
        {46: "DevicesUnavailable", 214: "EccUncorrectable", 220: "NvlinkUncorrectable", 226: "Contained"},
        Blame.DEVICE,
        FaultDomain.DEVICE,
    ),
    # At boot, and after a reset, these pass by themselves.
    **_codes(
        CudaClass.AWAITED,
        {3: "InitializationError", 802: "SystemNotReady"},
        Blame.DEVICE,
        FaultDomain.DEVICE,
    ),
    **_codes(
        CudaClass.ABSENT,
        {
            34: "StubLibrary",
            35: "InsufficientDriver",
            36: "CallRequiresNewerDriver",
            100: "NoDevice",
            101: "InvalidDevice",
            803: "SystemDriverMismatch",
            804: "CompatNotSupportedOnDevice",
        },
        Blame.TENANT,
        FaultDomain.PROCESS,
    ),
    **_codes(CudaClass.MEMORY, {2: "MemoryAllocation"}, Blame.TENANT, FaultDomain.REQUEST),
    **_codes(
        CudaClass.SOUND,
        {
            1: "InvalidValue",
            9: "InvalidConfiguration",
            98: "InvalidDeviceFunction",
            209: "NoKernelImageForDevice",
            400: "InvalidResourceHandle",
            500: "SymbolNotFound",
            600: "NotReady",
            701: "LaunchOutOfResources",
            712: "HostMemoryAlreadyRegistered",
            713: "HostMemoryNotRegistered",
            720: "CooperativeLaunchTooLarge",
            801: "NotSupported",
            900: "StreamCaptureUnsupported",
            901: "StreamCaptureInvalidated",
            902: "StreamCaptureMerge",
            903: "StreamCaptureUnmatched",
            904: "StreamCaptureUnjoined",
            905: "StreamCaptureIsolation",
            906: "StreamCaptureImplicit",
            907: "CapturedEvent",
            908: "StreamCaptureWrongThread",
            909: "Timeout",
            910: "GraphExecUpdateFailure",
            918: "FunctionNotLoaded",
            919: "FabricNotReady",
        },
        Blame.TENANT,
        FaultDomain.REQUEST,
    ),
}
"""Every code that is treated in a way of its own. A code that is not here is taken for sticky: see `lookup`."""


def lookup(code: int) -> CudaCode:
    """What a code means; one that nobody knows ends the process, because going on could give wrong answers."""
    known = CODES.get(code)
    return known or CudaCode(code, f"code {code}", CudaClass.STICKY, Blame.TENANT, FaultDomain.PROCESS)


AWAITED: dict[int, str] = {
    3: "the driver to come up",
    802: "the fabric manager (nvidia-fabricmanager) to bring the device up",
    807: "the MPS server to be ready",
    808: "a place among the MPS server's clients",
    809: "a place among the MPS server's connections",
}
"""What it is that a process waits for which got one of these codes when it opened its device."""


STRINGS: dict[str, int] = {
    "out of memory": 2,
    "invalid argument": 1,
    "initialization error": 3,
    "CUDA-capable device(s) is/are busy or unavailable": 46,
    "no CUDA-capable device is detected": 100,
    "CUDA driver version is insufficient for CUDA runtime version": 35,
    "no kernel image is available for execution on the device": 209,
    "uncorrectable ECC error encountered": 214,
    "uncorrectable NVLink error detected during the execution": 220,
    "invalid resource handle": 400,
    "an illegal memory access was encountered": 700,
    "too many resources requested for launch": 701,
    "the launch timed out and was terminated": 702,
    "context is destroyed": 709,
    "device-side assert triggered": 710,
    "hardware stack error": 714,
    "an illegal instruction was encountered": 715,
    "misaligned address": 716,
    "operation not supported on global/shared address space": 717,
    "invalid program counter": 718,
    "unspecified launch failure": 719,
    "operation not supported": 801,
    "MPS client failed to connect to the MPS control daemon or the MPS server": 805,
    "the remote procedural call between the MPS server and the MPS client failed": 806,
    "the MPS server is not ready to accept new MPS client requests": 807,
    "operation not permitted when stream is capturing": 900,
    "operation failed due to a previous error during capture": 901,
    "unknown error": 999,
}
"""cudaGetErrorString's texts, which is all that TensorRT 10 shows of a code."""


class TextKind(StrEnum):
    """What a text of TensorRT is about."""

    CUDA = "cuda"
    MEMORY = "memory"
    USAGE = "usage"
    DAMAGED = "damaged"
    VERSION = "version"
    PLATFORM = "platform"
    DEVICE = "device"
    HOST_CODE = "host_code"
    NO_LEAN = "no_lean"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A text of TensorRT, understood.

    Attributes:
        kind: what it is about.
        code: CUDA code, where the text holds one; 0 where not.
        advice: what it means in our words; empty where the text has to speak for itself.
    """

    kind: TextKind
    code: int = 0
    advice: str = ""


_CUDA_NUMBER = re.compile(r"cudaError(?:_t)?\s+(\d+)")
_CUDA_TEXT = re.compile(r"Error Code \d+: C[Uu][Dd][Aa] (?:Runtime|Driver) \(([^()]*(?:\([^()]*\)[^()]*)*)\)")
_VERSIONS = re.compile(r"Current Version: (\d+), Serialized Engine Version: (\d+)")
_LIBRARIES = re.compile(r"expecting library version (\S+) got (\S+?),? ")

_PLAN_TEXTS: tuple[tuple[str, TextKind, str], ...] = (
    ("Requested size was", TextKind.MEMORY, ""),
    ("Error Code 2: OutOfMemory", TextKind.MEMORY, ""),
    ("IOutputAllocator returned nullptr", TextKind.MEMORY, ""),
    ("header.magicTag", TextKind.DAMAGED, "it is no plan of this flavour of TensorRT"),
    ("header.size == blobSize", TextKind.DAMAGED, "it is truncated, or has bytes behind its end"),
    ("header.pad == expectedPlatformTag", TextKind.PLATFORM, "it was built for another platform"),
    ("Platform specific tag mismatch", TextKind.PLATFORM, "it was built for another platform"),
    ("kSERIALIZATION_VERSION", TextKind.VERSION, "it was built by another version of TensorRT"),
    ("expecting library version", TextKind.VERSION, "it was built by another version of TensorRT"),
    ("expecting compute", TextKind.DEVICE, "it was built for another GPU"),
    ("Expected compute capability", TextKind.DEVICE, "it was built for another GPU"),
    (
        "getEngineHostCodeAllowed",
        TextKind.HOST_CODE,
        "it holds code for the host, which tensorrt.allow_host_code does not allow",
    ),
    (
        "stub deserializeEngine",
        TextKind.NO_LEAN,
        "the dispatch runtime needs tensorrt.lean_library, or a plan with the lean runtime inside",
    ),
    ("API Usage Error", TextKind.USAGE, ""),
    ("Parameter check failed", TextKind.USAGE, ""),
)


def read_text(text: str) -> Verdict:
    """Understand one text that TensorRT's recorder or logger was given."""
    number = _CUDA_NUMBER.search(text)
    if number:
        return _cuda(int(number.group(1)))
    found = _CUDA_TEXT.search(text)
    if found:
        # TensorRT names a string that is not in the table only for codes that are newer than it.
        return _cuda(STRINGS.get(found.group(1).strip(), UNKNOWN_CODE))
    if "Platform (Cuda) error" in text:
        return Verdict(TextKind.CUDA)
    for part, kind, advice in _PLAN_TEXTS:
        if part in text:
            return Verdict(kind, OUT_OF_MEMORY if kind is TextKind.MEMORY else 0, advice + _versions(text))
    return Verdict(TextKind.OTHER)


def _cuda(code: int) -> Verdict:
    return Verdict(TextKind.MEMORY if lookup(code).kind is CudaClass.MEMORY else TextKind.CUDA, code)


def _versions(text: str) -> str:
    found = _VERSIONS.search(text)
    if found:
        return f" (it has serialization version {found.group(2)}, this runtime reads {found.group(1)})"
    found = _LIBRARIES.search(text)
    return f" (it was built by {found.group(2)}, this is {found.group(1)})" if found else ""


def worst(texts: list[str]) -> Verdict:
    """The text that decides among those of one failed call: a sticky code first, then memory, then the first one."""
    verdicts = [read_text(text) for text in texts]
    for verdict in verdicts:
        if verdict.kind is TextKind.CUDA and (not verdict.code or lookup(verdict.code).is_sticky):
            return verdict
    for verdict in verdicts:
        if verdict.kind is TextKind.MEMORY:
            return verdict
    return next((one for one in verdicts if one.kind is not TextKind.OTHER), Verdict(TextKind.OTHER))


def opening_fault(code: int, what: str) -> Fault:
    """The fault of a process that cannot have its device now, and may have it later; likewise."""
    known = lookup(code)
    if known.kind is not CudaClass.AWAITED:
        return sticky_fault(code, what)
    return Fault(
        FaultKind.DEVICE_AWAITED,
        f"{what}: CUDA error {code} ({known.name}): it waits for {AWAITED[code]}",
        blame=known.blame,
        domain=known.domain,
        code=code,
    )


def sticky_fault(code: int, what: str, texts: Sequence[str] = ()) -> Fault:
    """The fault of a process that is lost.

    Args:
        code: as CUDA gave it.
        what: what was being done, in a few words.
        texts: what TensorRT said of it.
    """
    known = lookup(code)
    return Fault(
        FaultKind.STICKY_ERROR,
        f"{what}: CUDA error {code} ({known.name}); this process can do no more work on its GPU",
        blame=known.blame,
        domain=known.domain if known.is_sticky else FaultDomain.PROCESS,
        code=code,
        texts=tuple(texts[:MAX_TEXTS]),
    )
