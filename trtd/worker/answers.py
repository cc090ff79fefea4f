"""What a worker says about one leased request: the result, or a typed error, as the frames that its client will get."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from trtd.core.batching import Waiting
from trtd.core.ids import LeaseId, RequestId
from trtd.errors import Malformed, ModelFailed, TrtdError
from trtd.runtime.areas import places
from trtd.runtime.gather import Rows
from trtd.runtime.inputs import Inputs, wanted
from trtd.runtime.protocol import Arrays
from trtd.wire.arenas import ArenaRef, encode_ref
from trtd.wire.batches import RESULT_ITEMS, encode_results_items
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
NOTHING: Placed = ()
Shapes = tuple[tuple[int, ...], ...]
"""Of the outputs."""


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


class Answers:
    """Answers on their way to the router, in the form that its messages have: no object per answer."""

    __slots__ = ("_frames", "_items")

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._frames: list[Any] = []

    def __len__(self) -> int:
        return len(self._items) // RESULT_ITEMS

    def extend(self, items: list[Any], frames: list[Any]) -> None:
        """Add answers.

        Args:
            items: lease, number of frames, and None or the code of an error, of each one after the other.
            frames: of all of them; those of each begin with its header.
        """
        self._items += items
        self._frames += frames

    def refuse(self, lease: LeaseId, request: RequestId, error: TrtdError) -> None:
        """The answer to a request that was refused or failed."""
        header = encode_router_message(ErrorAnswer(request, error.code, error.message, error.retry_after_s))
        self.extend([lease, 1, error.code], [header])

    def take(self, generation: int) -> list[list[Any]]:
        """Take all of them out, as few messages to the router, each a list of frames."""
        items, frames = self._items, self._frames
        if not items:
            return []
        self._items, self._frames = [], []
        made = []
        while len(items) > MAX_ENTRIES * RESULT_ITEMS:
            part, items = items[: MAX_ENTRIES * RESULT_ITEMS], items[MAX_ENTRIES * RESULT_ITEMS :]
            count = sum(part[1::RESULT_ITEMS])
            made.append([encode_results_items(generation, part), *frames[:count]])
            frames = frames[count:]
        made.append([encode_results_items(generation, items), *frames])
        return made


class Results:
    """Writes results. Headers for the same model and shapes are encoded once. For one thread."""

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._forms: dict[Hashable, ResultForm] = {}

    def add(
        self, answers: Answers, jobs: Sequence[Job], outputs: Sequence[Arrays], started_at: float, compute_us: int
    ) -> None:
        """Add the answers to requests that ran together: all of them, or none when it raises.

        Args:
            answers: get one more for each request.
            jobs: the requests.
            outputs: of each of them.
            started_at: when they ran.
            compute_us: how long they ran.

        Raises:
            trtd.errors.TrtdError: the outputs do not travel.
        """
        if type(outputs) is Rows:
            self._add_rows(answers, jobs, outputs, started_at, compute_us)
            return
        items: list[Any] = []
        frames: list[Any] = []
        for job, named in zip(jobs, outputs, strict=True):
            model, area = job.model, job.inputs.area
            names = wanted(job.inputs, model.output_names)
            arrays = [named[name] for name in names]
            if area is None:
                own, placed = [_bytes_of(array) for array in arrays], NOTHING
            else:
                own, placed = _place(area, arrays)
            form = self._form(model, names, tuple([array.shape for array in arrays]), placed)
            items += (job.lease, 1 + len(own), None)
            frames.append(form.header(job.id, job.queue_us, int((started_at - job.arrived_at) * 1e6), compute_us))
            frames += own
        answers.extend(items, frames)

    def _add_rows(self, answers: Answers, jobs: Sequence[Job], rows: Rows, started_at: float, compute_us: int) -> None:
        """The same from the outputs of the whole batch, without arrays for each request."""
        model, ends = jobs[0].model, rows.ends
        names = wanted(jobs[0].inputs, model.output_names)
        arrays = [rows.outputs[name] for name in names]
        inner = [array.shape[1:] for array in arrays]
        columns = [_cut(_bytes_of(array), array.nbytes // ends[-1], ends) for array in arrays]
        waited_us = _since([job.arrived_at for job in jobs], started_at)
        areas = [job.inputs.area for job in jobs]
        if type(ends) is range and areas.count(None) == len(jobs):
            form = self._form(model, names, tuple([(ends.step, *shape) for shape in inner]), NOTHING)
            width = 1 + len(columns)
            items: list[Any] = [None] * (RESULT_ITEMS * len(jobs))
            items[0::RESULT_ITEMS] = [job.lease for job in jobs]
            items[1::RESULT_ITEMS] = [width] * len(jobs)
            frames: list[Any] = [None] * (width * len(jobs))
            frames[0::width] = form.headers(
                [job.id for job in jobs], [job.queue_us for job in jobs], waited_us, compute_us
            )
            for number, column in enumerate(columns):
                frames[1 + number :: width] = column
            answers.extend(items, frames)
            return
        items, frames = [], []
        start = 0
        for job, end, batch_us, pieces in zip(jobs, ends, waited_us, zip(*columns, strict=True), strict=True):
            own, placed = (pieces, NOTHING) if job.inputs.area is None else _place(job.inputs.area, pieces)
            form = self._form(model, names, tuple([(end - start, *shape) for shape in inner]), placed)
            start = end
            items += (job.lease, 1 + len(own), None)
            frames.append(form.header(job.id, job.queue_us, batch_us, compute_us))
            frames += own
        answers.extend(items, frames)

    def _form(self, model: ServedModel, names: tuple[str, ...], shapes: Shapes, placed: Placed) -> ResultForm:
        key = (model, names, shapes, placed)
        form = self._forms.get(key)
        if form is None:
            form = self._new_form(model, names, shapes, placed)
            if len(self._forms) >= MAX_FORMS:
                self._forms.clear()
            self._forms[key] = form
        return form

    def _new_form(self, model: ServedModel, names: tuple[str, ...], shapes: Shapes, placed: Placed) -> ResultForm:
        specs = tuple(
            TensorSpec(name, model.outputs[name].dtype, shape, Place.ARENA if number in placed else Place.FRAME)
            for number, (name, shape) in enumerate(zip(names, shapes, strict=True))
        )
        description = model.description
        try:
            return ResultForm(description.name, description.version, self._generation, specs)
        except Malformed as error:
            # Such as more dimensions than travel, where the model does not say how many an output has.
            raise ModelFailed(f"model {model}: its answer does not travel: {error.message}") from error


def _since(instants: list[float], now: float) -> list[int]:
    """Microseconds from each instant to now. The requests of one message have arrived at one instant."""
    if instants.count(instants[0]) == len(instants):
        return [int((now - instants[0]) * 1e6)] * len(instants)
    return [int((now - instant) * 1e6) for instant in instants]


def _bytes_of(array: np.ndarray) -> Any:
    """A flat buffer of bytes."""
    return to_bytes(array) if array.nbytes < SMALL_BYTES else to_frame(array)


def _cut(flat: Any, row_bytes: int, ends: Sequence[int]) -> list[Any]:
    """The rows of each request, as one piece each."""
    starts = chain((0,), ends)
    return [flat[start * row_bytes : end * row_bytes] for start, end in zip(starts, ends, strict=False)]


def _place(area: Area, outputs: Sequence[Any]) -> tuple[list[Any], Placed]:
    """Put outputs into the area of their request, as far as they fit: arrays, or the flat buffers of cut ones.

    Returns:
        Their frames, which name places or hold the bytes, and which of them are there.
    """
    # A router that has gone has left the request to another worker, whose outputs may stand there by now.
    if not area.arena.is_open:
        return [_buffer_of(output) for output in outputs], NOTHING
    memory = area.arena.memory
    frames = []
    placed = []
    for number, at in enumerate(places([_size_of(output) for output in outputs], area.size_bytes)):
        output = outputs[number]
        if at is None:
            frames.append(_buffer_of(output))
            continue
        start, size = area.offset + at, _size_of(output)
        if not _is_made_in(memory, output):
            memory[start : start + size] = np.frombuffer(_buffer_of(output), np.uint8)
        frames.append(encode_ref(ArenaRef(area.arena.key, start, size)))
        placed.append(number)
    return frames, tuple(placed)


def _is_made_in(memory: np.ndarray, output: Any) -> bool:
    """Whether a runtime has put it into an area there: where it belongs, then. Inputs that lie there are read-only."""
    return type(output) is np.ndarray and output.base is memory and output.flags.writeable


def _size_of(output: Any) -> int:
    return output.nbytes if type(output) is np.ndarray else len(output)


def _buffer_of(output: Any) -> Any:
    return _bytes_of(output) if type(output) is np.ndarray else output
