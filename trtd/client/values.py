"""What callers of the client library hold in their hands: answers, their timing, health."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from trtd.wire.tensors import BFloat16 as BFloat16

Tensor = np.ndarray[Any, Any] | BFloat16


class Timing(NamedTuple):
    """Where the time of one request went, in seconds.

    Attributes:
        queue_s: waiting in the router.
        batch_s: waiting in the worker for its batch.
        compute_s: in the runtime.
        total_s: from the call to the answer, as this client measured it; the rest is transport.
    """

    queue_s: float
    batch_s: float
    compute_s: float
    total_s: float


@dataclass(slots=True, eq=False)
class Answer:
    """The answer to one request.

    Attributes:
        outputs: tensors by name. They are read-only views of the received message, and valid as long as they are held;
            `.copy()` gives one that may be changed.
        model: name of the model that ran.
        version: its version.
        generation: which life of the worker it was; grows with each restart.
        timing: where the time went.
    """

    outputs: Mapping[str, Tensor]
    model: str
    version: str
    generation: int
    timing: Timing

    def __getitem__(self, name: str) -> Tensor:
        return self.outputs[name]


@dataclass(frozen=True, slots=True)
class Health:
    """Readiness of the tenant behind an address.

    Attributes:
        is_ready: whether a worker would take a request now.
        state: `ready`, `waiting` (no worker at the moment, one is expected), `draining` or `unavailable`.
        reason: one line where it is not ready.
        daemon_version: version of trtd that answered.
    """

    is_ready: bool
    state: str
    reason: str
    daemon_version: str
