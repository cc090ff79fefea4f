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
from trtd.runtime.inputs import Inputs
from trtd.runtime.protocol import Arrays, PlacingSlot, Slot
from trtd.wire.settings import DEFAULT_MAX_ANSWER_BYTES
from trtd.worker.answers import Answers, Job, Results
from trtd.worker.progress import Progress
from trtd.worker.validate import ServedModel

log = get_logger()
defects = RateLimit(every_s=1.0)


class Runner:
    """One thread's slots, one for each model."""

    def __init__(
        self,
        slots: Mapping[ServedModel, Slot],
        generation: int,
        progress: Progress,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES,
    ) -> None:
        self._slots = slots
        self._placing = {model: slot for model, slot in self._slots.items() if isinstance(slot, PlacingSlot)}
        self._results = Results(generation, max_answer_bytes)
        self._progress = progress

    def run(self, batch: Sequence[Job], answers: Answers) -> None:
        """Run requests of one group together and answer each.

        Args:
            batch: of them.
            answers: gets one for each.

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
                answers.refuse(batch[0].lease, batch[0].id, typed(error))
                return
        else:
            self._answer(batch, outputs, started_at, int((ended_at - started_at) * 1e6), answers)
            return
        finally:
            self._progress.end(number)
        for job in batch:
            self.run([job], answers)

    def _answer(
        self, batch: Sequence[Job], outputs: Sequence[Arrays], started_at: float, compute_us: int, answers: Answers
    ) -> None:
        try:
            self._results.add(answers, batch, outputs, started_at, compute_us)
        except MemoryError:
            raise
        except Exception as error:
            # All are refused: their outputs have the same names, dtypes and number of dimensions.
            refused = typed(error)
            for job in batch:
                answers.refuse(job.lease, job.id, refused)

    def _run(self, model: ServedModel, requests: list[Inputs]) -> Sequence[Arrays]:
        area = requests[0].area
        if area is not None and len(requests) == 1 and area.arena.is_open and model in self._placing:
            return [self._placing[model].run_into(requests[0], area.memory, area.address)]
        return self._slots[model].run(requests)


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
