"""What a worker says about one leased request: the result, or a typed error, as the frames that its client will get."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtd.core.batching import Waiting
from trtd.core.ids import LeaseId, RequestId
from trtd.errors import ErrorCode, TrtdError
from trtd.runtime.areas import places
from trtd.runtime.gather import Rows
from trtd.runtime.inputs import Inputs
from trtd.runtime.protocol import Arrays
from trtd.wire.arenas import ArenaRef, encode_ref
from trtd.wire.batches import encode_results_items
from trtd.wire.codec import encode_router_message
from trtd.wire.forms import ResultForm
from trtd.wire.messages import MAX_ENTRIES, ErrorAnswer, Place, TensorSpec
from trtd.wire.tensors import to_bytes, to_frame
from trtd.worker.arenas import Area
from trtd.worker.validate import ServedModel

MAX_FORMS = 512
"""Most headers that are remembered."""

SMALL_BYTES = 16 * 1024
"""Smaller outputs are copied: that takes less than views of their memory, and their frames are joined anyhow."""

Placed = tuple[int, ...]
"""Numbers of the outputs that lie in the client's shared memory."""


# Not frozen: one is made per request.
@dataclass(slots=True, eq=False)
class Job(Waiting):
    """One admitted request, on its way through the worker.

    Attributes:
        lease: the router's number for it.
        id: the client's.
        model: what is to run.
        inputs: views on its frames, and the area for its outputs.
        queue_us: how long it waited in the router.
    """

    lease: LeaseId
    id: RequestId
    model: ServedModel
    inputs: Inputs
    queue_us: int


Answer = tuple[LeaseId, ErrorCode | None, list[Any]]
"""The lease that is answered, the code of an error or None for a result, and the frames, of which the first is the
header. A plain tuple, because one is made per request."""


class Results:
    """Writes results. Headers for the same model and shapes are encoded once. For one thread."""

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._forms: dict[Hashable, ResultForm] = {}

    def answer(self, job: Job, outputs: Arrays, batch_us: int, compute_us: int) -> Answer:
        """The answer to a request that ran.

        Raises:
            trtd.errors.TrtdError: the outputs do not travel.
        """
        model = job.model
        arrays = [outputs[name] for name in model.output_names]
        frames = [_bytes_of(array) for array in arrays]
        placed = () if job.inputs.area is None else _place(job.inputs.area, frames)
        form = self._form(model, tuple([array.shape for array in arrays]), placed)
        return job.lease, None, [form.header(job.id, job.queue_us, batch_us, compute_us), *frames]

    def answer_rows(self, jobs: Sequence[Job], rows: Rows, batch_us: Sequence[int], compute_us: int) -> list[Answer]:
        """The answers to requests that ran as one batch, from the outputs of the whole batch.

        Raises:
            trtd.errors.TrtdError: the outputs do not travel.
        """
        model = jobs[0].model
        arrays = [rows.outputs[name] for name in model.output_names]
        flats = [(_bytes_of(array), array.nbytes // rows.ends[-1]) for array in arrays]
        inner = [array.shape[1:] for array in arrays]
        forms: dict[Hashable, ResultForm] = {}
        answers: list[Answer] = []
        start = 0
        for job, end, waited_us in zip(jobs, rows.ends, batch_us, strict=True):
            frames: list[Any] = [flat[start * row_bytes : end * row_bytes] for flat, row_bytes in flats]
            area = job.inputs.area
            placed = () if area is None else _place(area, frames)
            items = end - start
            form = forms.get((items, placed))
            if form is None:
                form = self._form(model, tuple([(items, *shape) for shape in inner]), placed)
                forms[items, placed] = form
            header = form.header(job.id, job.queue_us, waited_us, compute_us)
            answers.append((job.lease, None, [header, *frames]))
            start = end
        return answers

    def _form(self, model: ServedModel, shapes: tuple[tuple[int, ...], ...], placed: Placed) -> ResultForm:
        key = (model, shapes, placed)
        form = self._forms.get(key)
        if form is None:
            form = self._new_form(model, shapes, placed)
            if len(self._forms) >= MAX_FORMS:
                self._forms.clear()
            self._forms[key] = form
        return form

    def _new_form(self, model: ServedModel, shapes: tuple[tuple[int, ...], ...], placed: Placed) -> ResultForm:
        description = model.description
        specs = tuple(
            TensorSpec(one.name, one.dtype, shape, Place.ARENA if number in placed else Place.FRAME)
            for number, (one, shape) in enumerate(zip(description.outputs, shapes, strict=True))
        )
        return ResultForm(description.name, description.version, self._generation, specs)


def _bytes_of(array: np.ndarray) -> Any:
    """A flat buffer of bytes."""
    return to_bytes(array) if array.nbytes < SMALL_BYTES else to_frame(array)


def _place(area: Area, frames: list[Any]) -> Placed:
    """Copy outputs into the area of their request, as far as they fit, and name their places in their frames.

    Returns:
        Which outputs are there.
    """
    # A router that has gone has left the request to another worker, whose outputs may stand there by now.
    if not area.arena.is_open:
        return ()
    placed = []
    for number, at in enumerate(places(map(len, frames), area.size_bytes)):
        if at is None:
            continue
        frame = frames[number]
        size = len(frame)
        there = area.memory[at : at + size]
        output = np.frombuffer(frame, np.uint8)
        if output.ctypes.data != there.ctypes.data:
            there[:] = output
        frames[number] = encode_ref(ArenaRef(area.arena.key, area.offset + at, size))
        placed.append(number)
    return tuple(placed)


def refusal(lease: LeaseId, request: RequestId, error: TrtdError) -> Answer:
    """The answer to a request that was refused or failed."""
    header = encode_router_message(ErrorAnswer(request, error.code, error.message, error.retry_after_s))
    return lease, error.code, [header]


def messages(answers: Sequence[Answer], generation: int) -> list[list[Any]]:
    """Answers as few messages to the router, each a list of frames."""
    made = []
    for start in range(0, len(answers), MAX_ENTRIES):
        part = answers[start : start + MAX_ENTRIES]
        items: list[Any] = []
        frames: list[Any] = [b""]
        for lease, code, own in part:
            items += (lease, len(own), code)
            frames += own
        frames[0] = encode_results_items(generation, items)
        made.append(frames)
    return made
