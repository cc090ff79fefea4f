"""What a worker says about one leased request: the result, or a typed error, as the frames that its client will get."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtd.core.ids import LeaseId, RequestId
from trtd.errors import TrtdError
from trtd.runtime.protocol import Arrays
from trtd.wire.batches import encode_results_items
from trtd.wire.codec import encode_router_message
from trtd.wire.forms import ResultForm
from trtd.wire.messages import MAX_ENTRIES, ErrorAnswer, TensorSpec
from trtd.wire.tensors import to_frame
from trtd.worker.validate import ServedModel

MAX_FORMS = 512
"""Most headers that are remembered."""


@dataclass(slots=True)
class Job:
    """One admitted request, on its way through the worker.

    Attributes:
        lease: the router's number for it.
        id: the client's.
        model: what is to run.
        inputs: views on its frames.
        queue_us: how long it waited in the router.
    """

    lease: LeaseId
    id: RequestId
    model: ServedModel
    inputs: dict[str, np.ndarray]
    queue_us: int


@dataclass(slots=True)
class Answer:
    """One answer: `code` is None for a result. `frames` start with the header."""

    lease: LeaseId
    code: str | None
    frames: list[Any]


class Results:
    """Writes results. Headers for the same model and shapes are encoded once. For one thread."""

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._forms: dict[tuple[Hashable, ...], ResultForm] = {}

    def answer(self, job: Job, outputs: Arrays, batch_us: int, compute_us: int) -> Answer:
        """The answer to a request that ran.

        Raises:
            trtd.errors.TrtdError: the outputs do not travel.
        """
        key: list[Hashable] = [job.model]
        frames: list[Any] = [b""]
        for contract in job.model.description.outputs:
            array = outputs[contract.name]
            key.append(array.shape)
            frames.append(to_frame(array))
        form = self._forms.get(tuple(key))
        if form is None:
            form = self._new_form(job.model, outputs)
            if len(self._forms) >= MAX_FORMS:
                self._forms.clear()
            self._forms[tuple(key)] = form
        frames[0] = form.header(job.id, job.queue_us, batch_us, compute_us)
        return Answer(job.lease, None, frames)

    def _new_form(self, model: ServedModel, outputs: Arrays) -> ResultForm:
        description = model.description
        specs = tuple(TensorSpec(one.name, one.dtype, outputs[one.name].shape) for one in description.outputs)
        return ResultForm(description.name, description.version, self._generation, specs)


def refusal(lease: LeaseId, request: RequestId, error: TrtdError) -> Answer:
    """The answer to a request that was refused or failed."""
    header = encode_router_message(ErrorAnswer(request, error.code, error.message, error.retry_after_s))
    return Answer(lease, error.code, [header])


def messages(answers: Sequence[Answer], generation: int) -> list[list[Any]]:
    """Answers as few messages to the router, each a list of frames."""
    made = []
    for start in range(0, len(answers), MAX_ENTRIES):
        part = answers[start : start + MAX_ENTRIES]
        items: list[Any] = []
        frames: list[Any] = [b""]
        for one in part:
            items += (one.lease, len(one.frames), one.code)
            frames += one.frames
        frames[0] = encode_results_items(generation, items)
        made.append(frames)
    return made
