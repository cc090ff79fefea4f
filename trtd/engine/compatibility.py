"""Whether a plan can run in the TensorRT that is there, as far as its header tells; said before anything is loaded.

What the header does not tell (compute capability, hardware compatibility) TensorRT says itself when it refuses; its
texts are understood in `trtd.core.cuda_faults`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from trtd.engine.header import PlanHeader, PlanKind

LINUX_X86_64 = b"rtrt"
"""Platform tag of plans for Linux on x86-64."""


class Flavour(StrEnum):
    """Which TensorRT a tenant runs in, as the configuration names it."""

    FULL = "tensorrt"
    LEAN = "tensorrt_lean"
    DISPATCH = "tensorrt_dispatch"
    RTX = "tensorrt_rtx"


@dataclass(frozen=True, slots=True)
class Installed:
    """The TensorRT that is there.

    Attributes:
        flavour: which.
        version: as the package says it, such as `10.6.0` or `10.6.0.26`.
        allows_host_code: whether code inside a plan may run on the host.
        has_lean_library: whether a lean library was named for the dispatch runtime.
        platform: tag that its plans must have; None where that is not known.
    """

    flavour: Flavour
    version: str
    allows_host_code: bool = False
    has_lean_library: bool = False
    platform: bytes | None = None


def incompatibility(header: PlanHeader, installed: Installed) -> str | None:
    """Why the plan cannot run there, with what it needs and what is there; None when nothing speaks against it."""
    wanted = PlanKind.RTX if installed.flavour is Flavour.RTX else PlanKind.TENSORRT
    here = f"{installed.flavour} {installed.version} is there"
    if header.kind is not wanted:
        return f"it is a plan of {header.kind} {header.release}; {here}"
    if installed.platform is not None and header.platform != installed.platform:
        return f"it is a plan for the platform {header.platform!r}; {installed.platform!r} is there"
    if header.serialization:
        return f"its layout has version {header.serialization}; {here}, and plans of version 0 are known"
    if header.has_host_code:
        if not installed.allows_host_code:
            return (
                "it brings a lean runtime, which is code that would run on this host; if you trust it, set"
                " tensorrt.allow_host_code = true, else build it with EXCLUDE_LEAN_RUNTIME"
            )
        return None
    if installed.flavour is Flavour.DISPATCH and not installed.has_lean_library:
        return f"it needs the lean runtime {header.release}; {here} alone: name its library in tensorrt.lean_library"
    if not installed.has_lean_library and not _is_same_version(header.version, installed.version):
        built_by = f"TensorRT {header.release} (build {header.version[3]})"
        return f"it was built by {built_by}; {here}, and reads its own plans only"
    return None


def _is_same_version(plan: tuple[int, int, int, int], installed: str) -> bool:
    """Whether all numbers agree that the package tells; the build is one byte in a plan."""
    numbers = [int(part) for part in installed.split(".")[:4] if part.isdigit()]
    return all(there % 256 == built for built, there in zip(plan, numbers, strict=False))
