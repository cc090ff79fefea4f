"""From settings to models that may serve: loaded, warmed up, and right where a known answer is configured.

Whatever prevents that becomes a `ProcessFault` whose fault says whether a new process would fail alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from trtd.core.faults import FaultKind
from trtd.errors import ModelFailed
from trtd.observe import get_logger
from trtd.runtime import open_runtime
from trtd.runtime.protocol import Runtime, Slot
from trtd.wire.settings import ModelSettings, WorkerSettings
from trtd.worker.faults import judged
from trtd.worker.probe import probe
from trtd.worker.travels import check_travels
from trtd.worker.validate import Catalogue, ServedModel

log = get_logger()


@dataclass(frozen=True, slots=True)
class Loaded:
    """Models that may serve, and the runtime that they are in."""

    runtime: Runtime
    catalogue: Catalogue
    slots: dict[ServedModel, Slot]
    """Warm already: for the thread that loaded, so that its slots need not be made twice."""


def load(settings: WorkerSettings) -> Loaded:
    """Load, warm up and probe all models, in configuration order.

    Raises:
        trtd.core.faults.ProcessFault: this worker cannot become ready.
    """
    with judged():
        runtime = open_runtime(
            settings.runtime,
            threads=settings.threads,
            slots=settings.slots,
            tensorrt=settings.tensorrt,
            onnxruntime=settings.onnxruntime,
        )
    # All of them before the first slot: a runtime may let the slots of a thread share what the largest model needs.
    served = {}
    for one in settings.models:
        with judged(FaultKind.BAD_MODEL):
            model = ServedModel(runtime.load(one), one)
            check_travels(model.description, settings)
        served[model] = one
    slots = {model: prepare(model, one) for model, one in served.items()}
    return Loaded(runtime, Catalogue(list(served)), slots)


def prepare(served: ServedModel, settings: ModelSettings) -> Slot:
    """Warm a model up and ask it its known answer.

    All slots share what becomes warm; a runtime whose slots have a state of their own warms it in `open_slot`.

    Returns:
        The slot that this was done on, for the thread that called.

    Raises:
        trtd.core.faults.ProcessFault: it may not serve.
    """
    with judged():
        # ModelFailed is of a slot that is warmed when it is opened, with inputs that the model itself says it takes.
        slot = served.model.open_slot()
        warm_up(served, slot)
        if settings.probe is not None:
            probe(served, slot, settings.probe)
    return slot


def warm_up(served: ServedModel, slot: Slot) -> None:
    """Run the model on made-up inputs.

    A refusal ends it only when the shapes were no guess: with free dimensions besides the batch, a model may refuse
    what it was warmed up with and be sound all the same.

    Raises:
        trtd.errors.ModelFailed: it refused them; also what the run raises itself.
    """
    is_guess = any(one.shape is None or None in one.shape[1:] for one in served.description.inputs)
    for inputs in served.model.warm_up_inputs():
        try:
            slot.run([inputs])
        except ModelFailed as error:
            if not is_guess:
                raise ModelFailed(f"model {served}: warm-up failed: {error.message}") from error
            log.warning("worker.warm_up_refused", model=str(served), reason=error.message)
