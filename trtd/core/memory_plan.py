"""Whether a model fits the device before anything of it is allocated: one sum, with every term told.

Nothing is measured here; the terms come from the plan's header and the engine (`trtd.runtime.tensorrt.model`), the
bounds from the configuration and the driver.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a sum: what it is for, and its bytes."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a model is going to need, in bytes.

    Attributes:
        weights_bytes: of the engine; 0 when they are loaded and part of what is held already.
        context_bytes: what the execution contexts of one slot keep for themselves.
        enqueue_bytes: scratch memory of one slot.
        shared_bytes: scratch memory that models loaded before need in each slot anyway. Models of one slot never run
            at the same time, so only what goes beyond it is new.
        io_bytes: inputs and outputs of one slot on the device.
        slots: batches that run at the same time.
        streamed_bytes: weights of a plan built for weight streaming that are to stay on the device. They never pass the
            ledger; they count against the device only.
        overhead_bytes: what the driver takes beside the ledger (context, kernels); counts against the device only.
    """

    weights_bytes: int = 0
    context_bytes: int = 0
    enqueue_bytes: int = 0
    shared_bytes: int = 0
    io_bytes: int = 0
    slots: int = 1
    streamed_bytes: int = 0
    overhead_bytes: int = 0

    def terms(self) -> tuple[Term, ...]:
        """The parts that pass the ledger, without those that are nothing."""
        each = f" x {self.slots} slots" if self.slots > 1 else ""
        terms = (
            Term("weights", self.weights_bytes),
            Term(f"contexts{each}", self.context_bytes * self.slots),
            Term(f"scratch{each}", max(0, self.enqueue_bytes - self.shared_bytes) * self.slots),
            Term(f"inputs and outputs{each}", self.io_bytes * self.slots),
        )
        return tuple(term for term in terms if term.size_bytes)

    @property
    def ledger_bytes(self) -> int:
        """Sum of what passes the ledger."""
        return sum(term.size_bytes for term in self.terms())


MARGIN = 0.25
LEAST_MARGIN_BYTES = 1024**3
"""Beyond what admission computed, where no hard watermark is configured: for what a run may ask for by the way. It is a
bound and takes nothing from anybody."""


def derived_hard_bytes(*, held_bytes: int, promised_bytes: int, growth_bytes: int, total_bytes: int) -> int:
    """A hard watermark for models that are loaded, so that what grows beyond all plans cannot take the device.

    Args:
        held_bytes: what the ledger holds.
        promised_bytes: what the models have not allocated yet.
        growth_bytes: outputs whose size is known only after a run, at their largest as far as that is known.
        total_bytes: of the device.
    """
    computed = held_bytes + promised_bytes
    return min(computed + growth_bytes + max(int(computed * MARGIN), LEAST_MARGIN_BYTES), total_bytes)


def refuse(
    plan: MemoryPlan, *, held_bytes: int, hard_bytes: int, free_bytes: int | None, promised_bytes: int = 0
) -> str | None:
    """Why a model does not fit, with each term and the sum; None when it does.

    Args:
        plan: what it needs.
        held_bytes: what the ledger holds already.
        hard_bytes: the hard watermark; 0 for none.
        free_bytes: what the device has left; None where that is not known.
        promised_bytes: what models that were admitted before have not allocated yet.
    """
    told = " + ".join(f"{term.name} {term.size_bytes}" for term in plan.terms()) or "nothing"
    needed = plan.ledger_bytes
    promised = f"{promised_bytes} bytes promised to models loaded before" if promised_bytes else ""
    if hard_bytes and held_bytes + promised_bytes + needed > hard_bytes:
        held = f"{held_bytes} bytes held" if held_bytes else ""
        beside = " and ".join(filter(None, (held, promised)))
        beside = f" beside {beside}" if beside else ""
        return f"it needs {needed} bytes of device memory ({told}){beside}; the hard watermark is {hard_bytes} bytes"
    whole = needed + plan.streamed_bytes + plan.overhead_bytes
    if free_bytes is not None and whole + promised_bytes > free_bytes:
        overhead = f" + streamed weights {plan.streamed_bytes}" if plan.streamed_bytes else ""
        overhead += f" + driver {plan.overhead_bytes}" if plan.overhead_bytes else ""
        beside = f" beside {promised}" if promised else ""
        return (
            f"it needs {whole} bytes of device memory ({told}{overhead}){beside}; "
            f"the device has {free_bytes} bytes free"
        )
    return None
