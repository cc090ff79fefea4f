"""Memory of this process and the limits on it. A cgroup, where there is one, is the supervisor's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trtd.core.faults import Fault, FaultKind
from trtd.wire.tensorrt import DeviceReport

STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Resident:
    """Resident memory, in bytes.

    Attributes:
        rss_bytes: now.
        peak_rss_bytes: at its highest.
        shared_bytes: the part of `rss_bytes` that is shared memory: the arenas of clients, which have a bound of their
            own and may not end a worker.
    """

    rss_bytes: int
    peak_rss_bytes: int
    shared_bytes: int = 0


def read_resident() -> Resident:
    """What the kernel says of this process (VmRSS, VmHWM and RssShmem).

    Not from getrusage(2): its highest value includes the parent's before exec.
    """
    fields = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines())
    return Resident(*(int(fields[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM", "RssShmem")))


def over_limit(resident: Resident, limit_bytes: int) -> Fault | None:
    """The fault of a process that holds more than its limit, None when it does not or has none (0)."""
    own_bytes = resident.rss_bytes - resident.shared_bytes
    if not limit_bytes or own_bytes <= limit_bytes:
        return None
    return Fault(
        FaultKind.OUT_OF_MEMORY,
        f"resident memory of {own_bytes} bytes is above the limit of {limit_bytes} bytes "
        f"(with what clients share: {resident.rss_bytes} bytes, highest: {resident.peak_rss_bytes} bytes)",
    )


def unaccounted(report: DeviceReport | None) -> Fault | None:
    """The fault of a process whose device memory has grown beside its pool, where the configuration wants that."""
    if report is None or report.verdict != "restart":
        return None
    return Fault(
        FaultKind.UNACCOUNTED_MEMORY,
        f"{report.unaccounted_bytes} bytes of device memory are unaccounted for, beside {report.pool_bytes} bytes in "
        "the pool: above tensorrt.unaccounted_bytes",
    )
