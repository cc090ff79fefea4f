"""From settings to models that may serve: loaded, warmed up, and right where a known answer is configured.

Whatever prevents that becomes a `ProcessFault` whose fault says whether a new process would fail alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from trtd.core.faults import FaultKind
from trtd.runtime import open_runtime
from trtd.runtime.protocol import Runtime, Slot
from trtd.wire.settings import WorkerSettings
from trtd.worker.faults import judged
from trtd.worker.travels import check_travels
from trtd.worker.trials import NOBODY, Teller, look_at_model, trial_key
from trtd.worker.validate import Catalogue, ServedModel
from trtd.worker.warming import Warmer


@dataclass(frozen=True, slots=True)
class Loaded:
    """Models that may serve, and the runtime that they are in.

    Attributes:
        runtime: that has loaded them.
        catalogue: of them.
        slots: warm already, for the thread that loaded.
        warmers: open further slots.
    """

    runtime: Runtime
    catalogue: Catalogue
    slots: dict[ServedModel, Slot]
    warmers: dict[ServedModel, Warmer]

    def open_slots(self) -> dict[ServedModel, Slot]:
        """Slots for one more thread, which is the calling one: warm, and right about known answers.

        Raises:
            trtd.errors.TrtdError, trtd.core.faults.ProcessFault: this worker cannot become ready.
        """
        return {model: warmer.next_slot() for model, warmer in self.warmers.items()}


def load(settings: WorkerSettings, teller: Teller = NOBODY) -> Loaded:
    """Load, warm up and probe all models, in configuration order.

    Args:
        settings: of the worker.
        teller: tells the supervisor what is tried.

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
    keys = {}
    for one in settings.models:
        with judged(FaultKind.BAD_MODEL):
            before = look_at_model(one.path, is_onnx=settings.runtime == "onnxruntime") if one.is_warmed_up else ()
            model = ServedModel(runtime.load(one), one)
            check_travels(model.description, settings)
        keys[model] = trial_key(before, one, settings, runtime.info) if one.is_warmed_up else ""
    known = {trial.key: trial for trial in settings.trials}
    with judged():
        warmers = {model: Warmer(model, key, known.get(key), teller) for model, key in keys.items()}
        slots = {model: warmer.first_slot() for model, warmer in warmers.items()}
    return Loaded(runtime, Catalogue(list(keys)), slots, warmers)
