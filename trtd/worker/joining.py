"""Whether requests of a model may share a run: shown by trying.

No file says whether the first dimension counts items that do not know of each other.
Requests whose answers are known are joined with neighbours, in several sizes and places. Two things must hold:

* A joined answer is the one that the request gets alone, within `TOLERANCE`: kernels differ with the size of a batch,
  and so may the last digits.
* Whoever the neighbours are (others of its kind, very large numbers, copies of the request itself), an answer in the
  same place of a batch of the same size is the same to the bit. So nothing of a neighbour hides below the tolerance.

A model that refuses all that is made up, whose answers do not tell requests apart, or that answers the same request
differently each time, has shown nothing, and runs alone. Pure but for the slot that it is given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trtd.errors import OutOfMemory, TrtdError
from trtd.runtime.protocol import Arrays, Slot
from trtd.wire.messages import ModelDescription, TensorContract
from trtd.worker.invention import Inventor, copies, inventors
from trtd.worker.numbers import is_close, widen
from trtd.worker.plans import FLOATS

TOLERANCE = 1e-2
"""Largest difference between joined and alone, relative to the largest number of the output: that of half precision."""

SUBJECTS = (1, 2, 3)
"""Items of the requests whose answers are compared."""
STRENGTHS = (1e4, 1e2, 1e1)
"""How much larger than usual the numbers of a loud neighbour are; a model may refuse the largest."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A request whose answer is known, by its number."""

    number: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Any other request, of so many items."""

    items: int


Layout = tuple[Subject | Neighbour, ...]
"""A batch."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request.

    Attributes:
        like: one of them, of any number of items.
        is_given: whether an operator gave it, so that its values are what the model takes.
        most: most items of a batch of them.
    """

    like: Arrays
    is_given: bool
    most: int


class _NothingShownError(Exception):
    """These inputs cannot show anything; others might."""


class _RefutedError(Exception):
    """Joined is not separate."""


def objection(slot: Slot, description: ModelDescription, case: Case) -> str | None:
    """Why requests like this one may not be joined, in words; None when they may.

    Args:
        slot: runs them.
        description: of the model.
        case: the kind of request.

    Raises:
        trtd.errors.OutOfMemory: memory did not suffice, which says nothing.
        trtd.core.faults.ProcessFault, MemoryError: what the run raises itself.
    """
    if case.most <= 1:
        return None
    reason = "nothing could be made up for it"
    for inventor in inventors(description.inputs, case.like, is_given=case.is_given):
        try:
            trial = _Trial(slot, description.outputs, inventor, case.most)
            trial.ask_alone()
            trial.ask_joined()
        except _NothingShownError as error:
            reason = str(error)
        except _RefutedError as error:
            return str(error)
        else:
            return None
    return reason


def layouts(most: int) -> Iterator[Layout]:
    """Batches to be tried: pairs, several requests, and a full one. Subjects come first, last and between others.

    Args:
        most: most items of a batch, at least 2.
    """
    one, two, three = Subject(0), Subject(1), Subject(2)
    yield one, Neighbour(1)
    yield Neighbour(1), one
    if most > 7:
        yield Neighbour(2), three, Neighbour(1), one
        rest = most - sum(SUBJECTS)
        yield one, Neighbour(rest // 2), two, Neighbour(rest - rest // 2), three
    elif most > 2:
        yield one, Neighbour(most - 2), one


class _Trial:
    """Subjects made by one inventor, and what they were answered."""

    def __init__(self, slot: Slot, outputs: Sequence[TensorContract], inventor: Inventor, most: int) -> None:
        self._slot = slot
        self._outputs = outputs
        self._inventor = inventor
        self._most = most
        self._subjects = [inventor.ordinary(items) for items in SUBJECTS if items <= most]
        self._alone: list[Arrays] = []

    def ask_alone(self) -> None:
        """Learn the answers of the subjects by themselves, and whether they can show anything.

        Raises:
            _NothingShownError, _RefutedError: they cannot, or what they show is enough.
        """
        self._alone = [self._run_alone(subject) for subject in self._subjects]
        for output in self._outputs:
            arrays = [answer[output.name] for answer in self._alone]
            for items, array in zip(SUBJECTS, arrays, strict=False):
                if array.shape[:1] != (items,):
                    raise _RefutedError(f"output {output.name!r} has shape {list(array.shape)} for {items} items")
            rows = [row for array in arrays for row in array]
            if output.dtype in FLOATS and any(np.isnan(widen(output.dtype, row)).any() for row in rows):
                raise _NothingShownError(f"output {output.name!r} is not a number for what was made up")
            if all(is_close(output.dtype, row, rows[0], TOLERANCE) for row in rows[1:]):
                told = "is the same for all that was made up, so that nothing shows whose it is"
                raise _NothingShownError(f"output {output.name!r} {told}")
        again = [self._run_alone(subject) for subject in self._subjects]
        for output in self._outputs:
            if not all(self._agree(output, *pair) for pair in zip(again, self._alone, strict=True)):
                raise _RefutedError(f"output {output.name!r} differs from run to run for the same input")

    def ask_joined(self) -> None:
        """Compare with the answers in company.

        Raises:
            _RefutedError: they differ.
        """
        for layout in layouts(self._most):
            usual = self._batch(layout, self._inventor.ordinary)
            answers = self._run(usual)
            for place, one in enumerate(layout):
                if isinstance(one, Subject):
                    self._compare_with_alone(answers[place], self._alone[one.number])
            self._compare(layout, usual, answers, self._run_loud(layout))
            if len(layout) == 2:
                same = self._batch(layout, lambda items: copies(self._subjects[0], items))
                self._compare(layout, usual, answers, self._run(same))

    def _batch(self, layout: Layout, neighbour: Callable[[int], Arrays]) -> list[Arrays]:
        return [self._subjects[one.number] if isinstance(one, Subject) else neighbour(one.items) for one in layout]

    def _compare_with_alone(self, got: Arrays, alone: Arrays) -> None:
        for output in self._outputs:
            if not self._agree(output, got, alone):
                raise _RefutedError(f"output {output.name!r} of joined requests is not what each gets alone")

    def _compare(
        self, layout: Layout, usual: list[Arrays], answers: Sequence[Arrays], others: Sequence[Arrays]
    ) -> None:
        """Whether subjects notice that their neighbours are others."""
        again: Sequence[Arrays] | None = None
        for place, one in enumerate(layout):
            if not isinstance(one, Subject):
                continue
            for output in self._outputs:
                before, after = answers[place][output.name], others[place][output.name]
                if _are_same(before, after):
                    continue
                # A device may add up in any order. Then the very same batch differs as well.
                again = again or self._run(usual)
                is_steady = _are_same(before, again[place][output.name])
                if is_steady or not self._agree(output, others[place], answers[place]):
                    raise _RefutedError(f"output {output.name!r} depends on the requests that are joined with its own")

    def _run_loud(self, layout: Layout) -> Sequence[Arrays]:
        """With the loudest neighbours that the model takes."""
        for strength in STRENGTHS[:-1]:
            with contextlib.suppress(_RefutedError):
                return self._run(self._batch(layout, lambda items: self._inventor.loud(items, strength)))  # noqa: B023
        return self._run(self._batch(layout, lambda items: self._inventor.loud(items, STRENGTHS[-1])))

    def _run_alone(self, request: Arrays) -> Arrays:
        try:
            return self._slot.run([request])[0]
        except OutOfMemory:
            raise
        except TrtdError as error:
            raise _NothingShownError(f"it refuses what was made up: {error.message}") from error

    def _run(self, batch: list[Arrays]) -> Sequence[Arrays]:
        try:
            return self._slot.run(batch)
        except OutOfMemory:
            raise
        except TrtdError as error:
            raise _RefutedError(f"joined requests fail: {error.message}") from error

    @staticmethod
    def _agree(output: TensorContract, got: Arrays, wanted: Arrays) -> bool:
        return is_close(output.dtype, got[output.name], wanted[output.name], TOLERANCE)


def _are_same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()
