"""Running one batch on one thread's slots, so that every request of it gets an answer of its own.

A request that makes its batch fail does not fail its mates: they are run again one by one. What ends the process
(`ProcessFault`, `MemoryError`) passes through.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence

from trtd.core.faults import ProcessFault
from trtd.errors import Internal, TrtdError
from trtd.observe import RateLimit, get_logger
from trtd.runtime.gather import Rows
from trtd.runtime.inputs import Inputs
from trtd.runtime.protocol import Arrays, PlacingSlot, Slot
from trtd.worker.answers import Answer, Job, Results, refusal
from trtd.worker.progress import Progress
from trtd.worker.validate import Catalogue, ServedModel

log = get_logger()
defects = RateLimit(every_s=1.0)


class Runner:
    """One thread's slots, one for each model."""

    def __init__(
        self, catalogue: Catalogue, generation: int, progress: Progress, slots: Mapping[ServedModel, Slot] | None = None
    ) -> None:
        self._slots = slots or {model: model.model.open_slot() for model in catalogue.models}
        self._placing = {model: slot for model, slot in self._slots.items() if isinstance(slot, PlacingSlot)}
        self._results = Results(generation)
        self._progress = progress

    def run(self, batch: Sequence[Job]) -> list[Answer]:
        """Run requests of one group together and answer each.

        Raises:
            trtd.core.faults.ProcessFault, MemoryError: nothing may be answered any more.
        """
        number = self._progress.begin()
        started_at = time.monotonic()
        try:
            outputs = self._run(batch[0].model, [job.inputs for job in batch])
            ended_at = time.monotonic()
            if len(outputs) != len(batch):
                raise RuntimeError(f"the runtime gave {len(outputs)} answers to {len(batch)} requests")
        except (ProcessFault, MemoryError):
            raise
        except Exception as error:
            if len(batch) == 1:
                return [self._refuse(batch[0], typed(error))]
        else:
            return self._answers(batch, outputs, started_at, int((ended_at - started_at) * 1e6))
        finally:
            self._progress.end(number)
        return [answer for job in batch for answer in self.run([job])]

    def _run(self, model: ServedModel, requests: list[Inputs]) -> Sequence[Arrays]:
        area = requests[0].area
        if area is not None and len(requests) == 1 and area.arena.is_open and model in self._placing:
            return [self._placing[model].run_into(requests[0], area.memory)]
        return self._slots[model].run(requests)

    def _answers(
        self, batch: Sequence[Job], outputs: Sequence[Arrays], started_at: float, compute_us: int
    ) -> list[Answer]:
        batch_us = [int((started_at - job.arrived_at) * 1e6) for job in batch]
        try:
            if type(outputs) is Rows:
                return self._results.answer_rows(batch, outputs, batch_us, compute_us)
            return [
                self._results.answer(job, arrays, waited_us, compute_us)
                for job, arrays, waited_us in zip(batch, outputs, batch_us, strict=True)
            ]
        except MemoryError:
            raise
        except Exception as error:
            # All are refused: their outputs have the same names, dtypes and number of dimensions.
            refused = typed(error)
            return [self._refuse(job, refused) for job in batch]

    @staticmethod
    def _refuse(job: Job, error: TrtdError) -> Answer:
        return refusal(job.lease, job.id, error)


def typed(error: Exception) -> TrtdError:
    """The error as a client may see it; what is not typed is a defect, whose details go to the log alone."""
    if isinstance(error, TrtdError):
        return error
    text = f"{type(error).__name__}: {error}"
    held_back = defects.take(text, time.monotonic())
    if held_back is not None:
        trace = "".join(traceback.format_exception(error)).strip()
        log.error("worker.defect_caught", error=text, held_back=held_back, trace=trace)
    return Internal("the worker could not handle this request")
