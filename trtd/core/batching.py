"""Which requests of a worker run together, and when: closed by size, or by the age of the first one.

Requests may share a batch when they agree on their group: model and version, and every shape but for the first dimension.
The worker's shell (`trtd.worker.loop`) adds what arrives and takes what is due.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch of one model closes.

    Attributes:
        max_items: most items (sum of first dimensions) in one batch.
        max_delay_s: longest wait of its first request; 0 never waits.
    """

    max_items: int
    max_delay_s: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """One request that waits for its batch.

    Attributes:
        group: requests of equal groups may run together; None runs alone always.
        items: its first dimension.
        arrived_at: when the worker got it.
        expires_at: when nobody wants its answer any more.
        work: opaque to the core.
    """

    group: Hashable | None
    items: int
    arrived_at: float
    expires_at: float
    work: Any
