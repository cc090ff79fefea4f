"""Running one batch on one thread's slots, so that every request of it gets an answer of its own.

A request that makes its batch fail does not fail its mates: they are run again one by one. What ends the process
(`ProcessFault`, `MemoryError`) passes through.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence

from trtd.core.batching import Waiting
from trtd.core.faults import ProcessFault
from trtd.errors import Internal, TrtdError
from trtd.observe import RateLimit, get_logger
from trtd.runtime.protocol import Arrays, Slot
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
        self._results = Results(generation)
        self._progress = progress

    def run(self, batch: Sequence[Waiting]) -> list[Answer]:
        """Run requests of one group together and answer each.

        Raises:
            trtd.core.faults.ProcessFault, MemoryError: nothing may be answered any more.
        """
        slot = self._slots[batch[0].work.model]
        number = self._progress.begin()
        started_at = time.monotonic()
        try:
            outputs = slot.run([waiting.work.inputs for waiting in batch])
            ended_at = time.monotonic()
            if len(outputs) != len(batch):
                raise RuntimeError(f"the runtime gave {len(outputs)} answers to {len(batch)} requests")
        except (ProcessFault, MemoryError):
            raise
        except Exception as error:
            if len(batch) == 1:
                return [self._refuse(batch[0].work, typed(error))]
        else:
            compute_us = int((ended_at - started_at) * 1e6)
            return [
                self._answer(waiting, arrays, started_at, compute_us)
                for waiting, arrays in zip(batch, outputs, strict=True)
            ]
        finally:
            self._progress.end(number)
        return [answer for waiting in batch for answer in self.run([waiting])]

    def _answer(self, waiting: Waiting, arrays: Arrays, started_at: float, compute_us: int) -> Answer:
        job: Job = waiting.work
        batch_us = int((started_at - waiting.arrived_at) * 1e6)
        try:
            return self._results.answer(job, arrays, batch_us, compute_us)
        except MemoryError:
            raise
        except Exception as error:
            return self._refuse(job, typed(error))

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
