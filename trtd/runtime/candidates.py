"""Which models might have their requests joined, by their shapes: one rule for all runtimes.

Shapes only tell what cannot be. Whether a free first dimension counts items is shown in `trtd.worker.joining`.
"""

from __future__ import annotations

from collections.abc import Sequence

from trtd.core.batching import OFF, alone
from trtd.wire.messages import TensorContract


def objection(inputs: Sequence[TensorContract], outputs: Sequence[TensorContract], max_batch: int) -> str:
    """What `ModelDescription.batching` says where requests cannot be joined; empty where they might be.

    How exporters call the first dimension does not matter: some give it another name for each tensor. An output whose
    shape the file does not tell may turn out right.
    """
    if max_batch == 1:
        return OFF
    if not inputs:
        return alone("it has no inputs")
    for kind, contracts in (("input", inputs), ("output", outputs)):
        for one in contracts:
            if one.shape is None and kind == "input":
                return alone(f"nobody knows how many dimensions input {one.name!r} has")
            if one.shape == ():
                return alone(f"{kind} {one.name!r} has no dimensions")
            if one.shape and one.shape[0] is not None:
                return alone(f"the first dimension of {kind} {one.name!r} is always {one.shape[0]}")
    return ""
