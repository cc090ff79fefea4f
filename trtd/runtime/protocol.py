"""What a worker needs of a runtime: load models, say what they take, run batches on slots.

Implemented by `trtd.runtime.onnxruntime` (CPU), `trtd.runtime.scripted` (tests), and the TensorRT runtime. Nothing here
imports any of them; `trtd.runtime.open_runtime(name, ...)` does, lazily.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from trtd.wire.messages import ModelDescription
from trtd.wire.settings import ModelSettings
from trtd.wire.tensorrt import DeviceReport

Arrays = Mapping[str, np.ndarray]
"""Tensors by name, C-contiguous. bfloat16 is a uint16 array, float8 a uint8 one; the description says which it is."""

Shapes = Mapping[str, tuple[int, ...]]
"""Of tensors by name, without free dimensions."""


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """Which runtime it is, for `trtd status`."""

    name: str
    version: str


class Slot(Protocol):
    """The means to run one batch at a time. Used by one thread only, its own; slots of one model run side by side."""

    def run(self, requests: Sequence[Arrays]) -> Sequence[Arrays]:
        """Run the requests as one batch and return one answer each, in order.

        Args:
            requests: inputs of each request, validated against the description. With more than one, the first
                dimensions add up to the batch and all other dimensions agree.

        Returns:
            Outputs of each request. They are sent without a copy: nobody writes to their memory after the return. They
            may be views, of one another or of the inputs.

        Raises:
            trtd.errors.ModelFailed: the runtime refused these inputs; the process is sound.
            trtd.errors.OutOfMemory: memory did not suffice; the process is sound.
            trtd.core.faults.ProcessFault: the process is not sound any more and has to leave.
        """
        ...

    def settle(self, request: Arrays) -> None:
        """Run a request as often as it takes until further runs of its shape go the way that they will stay on.

        Nobody waits meanwhile, so what is done lazily otherwise (a captured graph) is done now. Raises what `run` does.
        """
        ...


@runtime_checkable
class PlacingSlot(Slot, Protocol):
    """A slot that can write outputs of a request straight into the shared memory of its client."""

    def run_into(self, request: Arrays, area: np.ndarray, address: int) -> Arrays:
        """Run one request; raises what `run` does.

        Args:
            request: its inputs.
            area: writable bytes. Whoever else has them may write there at any time.
            address: of the first of them.

        Returns:
            Its outputs. They are views of the area, where `trtd.runtime.areas.places` puts them, or lie elsewhere.
        """
        ...


class Model(Protocol):
    """A loaded model."""

    @property
    def description(self) -> ModelDescription:
        """Names, dtypes and shapes, read from the model itself."""
        ...

    @property
    def copies_inputs(self) -> bool:
        """Whether each byte of an input is read once, by a copy, before it means anything to the runtime.

        Then a client may rewrite its shared memory at any time without leading the runtime out of a buffer.
        """
        ...

    def most_items(self, shapes: Shapes) -> int | None:
        """Most items of one run, where the first dimension counts them; `max_batch` does not matter here.

        Args:
            shapes: of the inputs by name; what they have as first dimension does not matter either.

        Returns:
            None where any number will do, 0 where no number would.
        """
        ...

    @property
    def shares_warmth(self) -> bool:
        """Whether what becomes warm in one slot is warm in all of them."""
        ...

    def never_join(self) -> None:
        """Its first dimension does not count items, whatever it looked like: nothing may be added to a request.

        Until this is called, `description.is_batched` says what the shapes allow.
        """
        ...

    def open_slot(self) -> Slot:
        """A new slot on this model; called in the thread that will use it."""
        ...

    def warm_up_inputs(self, like: Arrays | None = None) -> Sequence[Arrays]:
        """Inputs, one request each, whose runs leave nothing to be done lazily at the first real request.

        They are made up, so the model may refuse them and be sound.

        Args:
            like: a request that an operator gave: its values, and its shapes where the model leaves them open, are
                taken.
        """
        ...


class Runtime(Protocol):
    """One runtime in one process."""

    @property
    def info(self) -> RuntimeInfo:
        """Name and version."""
        ...

    def load(self, settings: ModelSettings) -> Model:
        """Load a model.

        Raises:
            trtd.errors.InvalidConfig: the file is missing, damaged or not for this runtime; it says which.
            trtd.errors.OutOfMemory: it does not fit.
        """
        ...

    def device_memory(self) -> DeviceReport | None:
        """Figures of its device, None without one. Safe in any thread; never waits for the device."""
        ...

    def pin(self, memory: np.ndarray) -> None:
        """Shared memory of a client, as bytes, from which inputs will come: make it fit for copies to the device.

        Does not wait for the device. The memory stays as it is until `unpin`. A runtime without a device, or a refusal,
        changes nothing but the speed.
        """
        ...

    def unpin(self, memory: np.ndarray, then: Callable[[], None]) -> None:
        """The opposite of `pin`, with the same array, once nothing that came from it is in use.

        Args:
            memory: see above.
            then: called once the memory may go, perhaps later and in another thread.
        """
        ...

    def make_fault(self, fault: str) -> None:
        """Make a real fault in this process, one of `trtd.wire.tensorrt.FAULTS`; for drills.

        Raises:
            trtd.core.faults.ProcessFault: as it turned out, the process is lost.
            trtd.errors.TrtdError: it was refused, or is survived.
        """
        ...

    def close(self) -> None:
        """Release everything; repeatable."""
        ...
