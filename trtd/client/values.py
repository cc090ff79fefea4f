"""What callers of the client library hold in their hands: answers, their timing, health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from trtd.wire.messages import InferAnswer
from trtd.wire.tensors import BFloat16 as BFloat16
from trtd.wire.tensors import Float8 as Float8

Tensor = np.ndarray[Any, Any] | BFloat16 | Float8


class SupportsDLPack(Protocol):
    """A tensor of another library."""

    def __dlpack__(self, *, stream: None = ...) -> Any:
        """Its memory."""
        ...


TensorLike = Tensor | npt.ArrayLike | SupportsDLPack
"""What calls take as an input."""

_MICRO = 1e-6


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


class Answer:
    """The answer to one request. What is in it is looked at when it is asked for."""

    __slots__ = ("_frames", "_outputs", "_region", "_reply", "_timing_us", "_total_s")

    def __init__(
        self, reply: Reply, frames: Sequence[Any], timing_us: tuple[int, int, int], total_s: float, region: Any = None
    ) -> None:
        """Take what the daemon sent.

        Args:
            reply: what the header says.
            frames: of the outputs; sizes and places have been checked.
            timing_us: in the router's queue, in the batch, in the runtime.
            total_s: from the call to the answer.
            region: the shared memory in which outputs lie, None where all are in frames.
        """
        self._reply = reply
        self._frames = frames
        self._timing_us = timing_us
        self._total_s = total_s
        self._region = region
        self._outputs: dict[str, Tensor] | None = None

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        """Tensors by name.

        They are read-only views of the received message or of shared memory, and valid as long as they are held;
        `.copy()` gives one that may be changed.
        """
        if self._outputs is None:
            self._outputs = self._reply.outputs_of(self._frames, self._region)
        return self._outputs

    @property
    def model(self) -> str:
        """Name of the model that ran."""
        return self._reply.message.model

    @property
    def version(self) -> str:
        """Its version."""
        return self._reply.message.version

    @property
    def generation(self) -> int:
        """Which life of the worker it was; grows with each restart."""
        return self._reply.message.generation

    @property
    def timing(self) -> Timing:
        """Where the time went."""
        queue_us, batch_us, compute_us = self._timing_us
        return Timing(queue_us * _MICRO, batch_us * _MICRO, compute_us * _MICRO, self._total_s)

    def __getitem__(self, name: str) -> Tensor:
        return self.outputs[name]

    def __reduce__(self) -> Any:
        # A copy holds its tensors itself, wherever they came from.
        message, frames = self._reply.in_frames(self._frames, self._region)
        return _copied, (type(self._reply), message, frames, self._timing_us, self._total_s)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {list(tensor.shape)}" for name, tensor in self.outputs.items())
        return f"<Answer of {self.model} {self.version}, generation {self.generation}: {shapes}>"


class Reply(Protocol):
    """What an answer needs of its header."""

    message: InferAnswer

    def __init__(self, message: InferAnswer) -> None: ...

    def outputs_of(self, frames: Sequence[Any], region: Any) -> dict[str, Tensor]:
        """The arrays in these frames and in this region."""
        ...

    def in_frames(self, frames: Sequence[Any], region: Any) -> tuple[InferAnswer, list[bytes]]:
        """The same answer with all of its outputs in frames of their own."""
        ...


def _copied(
    kind: type[Reply], message: InferAnswer, frames: list[bytes], timing_us: tuple[int, int, int], total_s: float
) -> Answer:
    return Answer(kind(message), frames, timing_us, total_s)


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
