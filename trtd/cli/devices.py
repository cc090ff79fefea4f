"""`trtd doctor --wait-for-devices`: until the device nodes of the GPUs that tenants need are there, or the time is up.

For the start of a host: a driver makes its nodes when it is loaded, and a sandbox lets through those
that existed when it was built. Whether the GPU works is another question, which `trtd doctor` alone answers.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from trtd.config.model import Config

SHARED_NODES = ("nvidiactl", "nvidia-uvm")
"""Nodes that every process with a CUDA context opens, besides that of its GPU."""
GPU_NODE = re.compile(r"nvidia\d+")
LOOK_EVERY_S = 0.25

Finding = dict[str, str]


def gpus_needed(config: Config) -> int:
    """How many GPUs the tenants' highest device number asks for; 0 when no tenant needs one."""
    tables = [table for table in config.tenants.values() if table.runtime.startswith("tensorrt")]
    return max((table.tensorrt.device + 1 for table in tables), default=0)


def trouble(directory: Path, gpus: int) -> str:
    """What is missing among the nodes, or closed to this user; nothing when all is there."""
    found = sorted(path.name for path in directory.glob("nvidia*") if GPU_NODE.fullmatch(path.name))
    missing = [name for name in SHARED_NODES if not (directory / name).exists()]
    if len(found) < gpus:
        missing.append(f"{gpus - len(found)} of {gpus} nvidia0, nvidia1, ...")
    if missing:
        return f"{directory} has no {', no '.join(missing)}"
    closed = [name for name in (*SHARED_NODES, *found) if not os.access(directory / name, os.R_OK | os.W_OK)]
    return f"{directory}/{closed[0]} may not be opened by uid {os.geteuid()}" if closed else ""


def wait(
    config: Config,
    patience_s: float,
    directory: Path = Path("/dev"),
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Finding:
    """Wait for the nodes.

    Args:
        config: whose tenants count.
        patience_s: how long they may take.
        directory: where they appear.
        clock: monotonic seconds.
        sleep: waits for so many seconds.
    """
    gpus = gpus_needed(config)
    if not gpus:
        return _finding("ok", "no tenant needs a GPU")
    began_at = clock()
    while text := trouble(directory, gpus):
        if clock() - began_at >= patience_s:
            advice = "Load the driver (`nvidia-modprobe -u -c 0`, or nvidia-persistenced.service), then restart trtd."
            return _finding("problem", f"{text} after {patience_s:g} s", advice)
        sleep(LOOK_EVERY_S)
    return _finding("ok", f"the nodes of {gpus} GPU{'s' * (gpus > 1)} are there")


def _finding(level: str, text: str, advice: str = "") -> Finding:
    return {"area": "devices", "level": level, "text": text, "advice": advice}
