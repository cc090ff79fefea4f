"""What a worker says about one leased request: the result, or a typed error, as the frames that its client will get."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from trtd.core.batching import Waiting
from trtd.core.disclosure import without_directories
from trtd.core.ids import LeaseId, RequestId
from trtd.errors import Malformed, ModelFailed, TrtdError
from trtd.runtime.areas import places
from trtd.runtime.gather import Rows
from trtd.runtime.inputs import Inputs, wanted
from trtd.runtime.protocol import Arrays
from trtd.wire.arenas import ArenaRef, encode_ref
from trtd.wire.batches import RESULT_ITEMS, RESULTS_BYTES, encode_results_items
from trtd.wire.codec import encode_router_message
from trtd.wire.forms import ResultForm
from trtd.wire.messages import MAX_ENTRIES, ErrorAnswer, Place, TensorSpec
from trtd.wire.settings import DEFAULT_MAX_ANSWER_BYTES
from trtd.wire.tensors import to_bytes, to_frame
from trtd.worker.answer_sizes import too_large
from trtd.worker.arenas import Area
from trtd.worker.validate import ServedModel

ROOTS = frozenset(one.name for one in Path("/").iterdir())
"""Where paths of this host begin; what else looks like a path is the name of a tensor or a node."""
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

    __slots__ = ("_frames", "_items", "_size_bytes")

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._frames: list[Any] = []
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._items) // RESULT_ITEMS

    def extend(self, items: list[Any], frames: list[Any], size_bytes: int = 0) -> None:
        """Add answers.

        Args:
            items: lease, number of frames, and None or the code of an error, of each one after the other.
            frames: of all of them; those of each begin with its header.
            size_bytes: of their outputs.
        """
        self._items += items
        self._frames += frames
        self._size_bytes += size_bytes

    def refuse(self, lease: LeaseId, request: RequestId, error: TrtdError) -> None:
        """The answer to a request that was refused or failed."""
        header = encode_router_message(
            ErrorAnswer(request, error.code, without_directories(error.message, ROOTS), error.retry_after_s)
        )
        self.extend([lease, 1, error.code], [header])

    def take(self, generation: int) -> list[list[Any]]:
        """Take all of them out, as few messages to the router, each a list of frames."""
        items, frames, size_bytes = self._items, self._frames, self._size_bytes
        if not items:
            return []
        self._items, self._frames, self._size_bytes = [], [], 0
        if size_bytes <= RESULTS_BYTES and len(items) <= MAX_ENTRIES * RESULT_ITEMS:
            return [[encode_results_items(generation, items), *frames]]
        made = []
        start = at = first = waiting = 0
        for place, count in enumerate(items[1::RESULT_ITEMS]):
            size = sum(map(len, frames[at : at + count]))
            if place - first == MAX_ENTRIES or (waiting and waiting + size > RESULTS_BYTES):
                part = items[first * RESULT_ITEMS : place * RESULT_ITEMS]
                made.append([encode_results_items(generation, part), *frames[start:at]])
                first, start, waiting = place, at, 0
            at += count
            waiting += size
        made.append([encode_results_items(generation, items[first * RESULT_ITEMS :]), *frames[start:]])
        return made


class Results:
    """Writes results. Headers for the same model and shapes are encoded once. For one thread.

    Args:
        generation: this life of the worker.
        max_answer_bytes: an answer with more bytes in frames is refused, before any of them is copied.
    """

    def __init__(self, generation: int, max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES) -> None:
        self._generation = generation
        self._max_answer_bytes = max_answer_bytes
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
        whole = 0
        for job, named in zip(jobs, outputs, strict=True):
            model, area = job.model, job.inputs.area
            names = wanted(job.inputs, model.output_names)
            arrays = [named[name] for name in names]
            sizes = [array.nbytes for array in arrays]
            at = _places(area, sizes)
            size = sum(sizes) if at is None else _outside(at, sizes)
            if size > self._max_answer_bytes:
                self._refuse(job, names, sizes, at, items, frames)
                continue
            whole += size
            if area is None or at is None:
                own, placed = [_bytes_of(array) for array in arrays], NOTHING
            else:
                own, placed = _place(area, at, arrays)
            form = self._form(model, names, tuple([array.shape for array in arrays]), placed)
            items += (job.lease, 1 + len(own), None)
            frames.append(form.header(job.id, job.queue_us, int((started_at - job.arrived_at) * 1e6), compute_us))
            frames += own
        answers.extend(items, frames, whole)

    def _add_rows(self, answers: Answers, jobs: Sequence[Job], rows: Rows, started_at: float, compute_us: int) -> None:
        """The same from the outputs of the whole batch, without arrays for each request."""
        model, ends = jobs[0].model, rows.ends
        names = wanted(jobs[0].inputs, model.output_names)
        arrays = [rows.outputs[name] for name in names]
        inner = [array.shape[1:] for array in arrays]
        row_sizes = [array.nbytes // ends[-1] for array in arrays]
        columns = [_cut(_bytes_of(array), size, ends) for array, size in zip(arrays, row_sizes, strict=True)]
        row_bytes = sum(row_sizes)
        waited_us = _since([job.arrived_at for job in jobs], started_at)
        areas = [job.inputs.area for job in jobs]
        if type(ends) is range and areas.count(None) == len(jobs) and row_bytes * ends.step <= self._max_answer_bytes:
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
            answers.extend(items, frames, row_bytes * ends[-1])
            return
        items, frames = [], []
        start = whole = 0
        for job, end, batch_us, pieces in zip(jobs, ends, waited_us, zip(*columns, strict=True), strict=True):
            area = job.inputs.area
            sizes = list(map(len, pieces))
            at = _places(area, sizes)
            size = sum(sizes) if at is None else _outside(at, sizes)
            if size > self._max_answer_bytes:
                self._refuse(job, names, sizes, at, items, frames)
                start = end
                continue
            whole += size
            own, placed = (pieces, NOTHING) if area is None or at is None else _place(area, at, pieces)
            form = self._form(model, names, tuple([(end - start, *shape) for shape in inner]), placed)
            start = end
            items += (job.lease, 1 + len(own), None)
            frames.append(form.header(job.id, job.queue_us, batch_us, compute_us))
            frames += own
        answers.extend(items, frames, whole)

    def _refuse(
        self,
        job: Job,
        names: tuple[str, ...],
        sizes: Sequence[int],
        at: Sequence[int | None] | None,
        items: list[Any],
        frames: list[Any],
    ) -> None:
        """Add the refusal of an answer that is too large to travel."""
        named = [
            (name, size)
            for number, (name, size) in enumerate(zip(names, sizes, strict=True))
            if at is None or at[number] is None
        ]
        error = too_large(job.model, named, self._max_answer_bytes)
        items += (job.lease, 1, error.code)
        frames.append(encode_router_message(ErrorAnswer(job.id, error.code, error.message)))

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


def _places(area: Area | None, sizes: Sequence[int]) -> list[int | None] | None:
    """Where outputs of these sizes go in the area of their request; None where there is none."""
    # A router that has gone has left the request to another worker, whose outputs may stand there by now.
    if area is None or not area.arena.is_open:
        return None
    return places(sizes, area.size_bytes)


def _outside(at: Sequence[int | None], sizes: Sequence[int]) -> int:
    """Bytes of the outputs that have no place in the area."""
    return sum(size for place, size in zip(at, sizes, strict=True) if place is None)


def _place(area: Area, at: Sequence[int | None], outputs: Sequence[Any]) -> tuple[list[Any], Placed]:
    """Put outputs into the area of their request: arrays, or the flat buffers of cut ones.

    Returns:
        Their frames, which name places or hold the bytes, and which of them are there.
    """
    memory = area.arena.memory
    frames = []
    placed = []
    for number, (place, output) in enumerate(zip(at, outputs, strict=True)):
        if place is None:
            frames.append(_buffer_of(output))
            continue
        start, size = area.offset + place, _size_of(output)
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
