"""Whether requests of a model may share a run: shown by trying.

No file says whether the first dimension counts items that do not know of each other.
Requests whose answers are known are joined with neighbours, in several sizes and places. Two things must hold:

* A joined answer is the one that the request gets alone, within `TOLERANCE`: kernels differ with the size of a batch,
  and so may the last digits.
* Whoever the neighbours are (others of its kind, very large numbers, none at all, copies of the request itself), an
  answer in the same place of a batch of the same size is the same to the bit. So nothing of a neighbour hides below
  the tolerance.

That is tried with usual numbers first, then in smaller batches with ones near zero and large ones: an output that
saturates hides what one in the middle of its range shows, and a threshold is passed by some only.
A model that refuses all that is made up, one of whose outputs never tells requests apart, or that answers the same
request differently each time, has shown nothing, and runs alone. Pure but for the slot that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from trtd.errors import OutOfMemory, TrtdError
from trtd.runtime.protocol import Arrays, Slot
from trtd.wire.messages import Dtype, ModelDescription, TensorContract
from trtd.worker.invention import Inventor, copies, families
from trtd.worker.numbers import is_close, widen
from trtd.worker.plans import FLOATS

TOLERANCE = 1e-2
"""Largest difference between joined and alone, relative to the largest number of the output: that of half precision."""

SUBJECTS = (1, 2, 3)
"""Items of the requests whose answers are compared."""
STRENGTHS = ((1e4, True), (1e4, False), (1e2, False), (1e1, False))
"""How much larger than usual the floats of a loud neighbour are, and whether whole numbers are; a model may refuse."""
FEW = 3
"""Most items of a batch once one of `max_batch` was tried with other numbers."""
STEADY_TOLERANCE = 1e-3
"""As `TOLERANCE`, where an output has the same number in each answer: that may be a row's number, beside large ones."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A request whose answer is known, by its number."""

    number: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Any other request, of so many items."""

    items: int


Run = Callable[[Sequence[Arrays]], Sequence[Arrays]]
"""As `Slot.run`."""

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


class TooSlowError(Exception):
    """There is no time to show it."""


class _NothingShownError(Exception):
    """These inputs cannot show anything; others might."""


class _RefutedError(Exception):
    """Joined is not separate."""


class _DiffersError(_RefutedError):
    """They are not the same, and that may be rounding where numbers are so large that it decides."""


def objection(
    slot: Slot, description: ModelDescription, case: Case, is_late: Callable[[], bool] = lambda: False
) -> str | None:
    """Why requests like this one may not be joined, in words; None when they may.

    Args:
        slot: runs them.
        description: of the model.
        case: the kind of request.
        is_late: asked before each run: whether to give up.

    Raises:
        TooSlowError: it was late.
        trtd.errors.OutOfMemory: memory did not suffice, which says nothing.
        trtd.core.faults.ProcessFault, MemoryError: what the run raises itself.
    """
    if case.most <= 1:
        return None
    run = _watched(slot, is_late)
    reason = "nothing could be made up for it"
    unshown = {output.name for output in description.outputs}
    most, is_untried = case.most, True
    for usual, *others in families(description.inputs, case.like, is_given=case.is_given):
        try:
            unshown &= _try(run, description.outputs, usual, most)
        except _NothingShownError as error:
            reason = str(error) if is_untried else reason
            continue
        except _RefutedError as error:
            return str(error)
        most, is_untried = min(most, FEW), False
        for other in others:
            try:
                unshown &= _try(run, description.outputs, other, most)
            except _NothingShownError:
                continue
            except _RefutedError as error:
                if isinstance(error, _DiffersError) and other.is_coarse:
                    continue
                return str(error)
        if not unshown:
            return None
        reason = f"output {min(unshown)!r} is the same for all that was made up, so that nothing shows whose it is"
    return reason


def _watched(slot: Slot, is_late: Callable[[], bool]) -> Run:
    def run(requests: Sequence[Arrays]) -> Sequence[Arrays]:
        if is_late():
            raise TooSlowError
        return slot.run(requests)

    return run


def _try(run: Run, outputs: Sequence[TensorContract], inventor: Inventor, most: int) -> set[str]:
    """Try one inventor; returns the outputs that are the same in each answer, so that they show nothing."""
    trial = _Trial(run, outputs, inventor, most)
    same = trial.ask_alone()
    trial.ask_joined()
    return same


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


def sizes_between(most: int) -> Iterator[Layout]:
    """Batches of the sizes between a pair and a full one: 3, and powers of two. A runtime may choose code by the size.

    Args:
        most: as in `layouts`.
    """
    for size in (3, *(1 << power for power in range(2, most.bit_length()))):
        if size < most:
            yield Subject(0), Neighbour(size - 1)


class _Trial:
    """Subjects made by one inventor, and what they were answered."""

    def __init__(self, run: Run, outputs: Sequence[TensorContract], inventor: Inventor, most: int) -> None:
        self._run_slot = run
        self._outputs = outputs
        self._inventor = inventor
        self._most = most
        self._subjects = [inventor.ordinary(items) for items in SUBJECTS if items <= most]
        self._alone: list[Arrays] = []
        self._steady: dict[str, np.ndarray] = {}
        """By output whether all known answers have the same number there, by the last dimension."""

    def ask_alone(self) -> set[str]:
        """Learn the answers of the subjects by themselves, and which outputs are the same in all of them.

        Raises:
            _NothingShownError, _RefutedError: they show nothing, or what they show is enough.
        """
        self._alone = [self._run_alone(subject) for subject in self._subjects]
        same = set()
        for output in self._outputs:
            arrays = [answer[output.name] for answer in self._alone]
            for items, array in zip(SUBJECTS, arrays, strict=False):
                if array.shape[:1] != (items,):
                    raise _RefutedError(f"output {output.name!r} has shape {list(array.shape)} for {items} items")
            rows = [row for array in arrays for row in array]
            if output.dtype in FLOATS and any(np.isnan(widen(output.dtype, row)).any() for row in rows):
                raise _NothingShownError(f"output {output.name!r} is not a number for what was made up")
            if all(is_close(output.dtype, row, rows[0], TOLERANCE) for row in rows[1:]):
                same.add(output.name)
            self._steady[output.name] = _find_steady(output.dtype, rows)
        again = [self._run_alone(subject) for subject in self._subjects]
        for output in self._outputs:
            if not all(self._agree(output, *pair) for pair in zip(again, self._alone, strict=True)):
                raise _RefutedError(f"output {output.name!r} differs from run to run for the same input")
        return same

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
                poisoned = self._run_poisoned(layout)
                if poisoned is not None:
                    self._compare(layout, usual, answers, poisoned)
        for one, neighbour in sizes_between(self._most):
            answers = self._run(self._batch((one, neighbour), self._inventor.ordinary))
            self._compare_with_alone(answers[0], self._alone[0])

    def _batch(self, layout: Layout, neighbour: Callable[[int], Arrays]) -> list[Arrays]:
        return [self._subjects[one.number] if isinstance(one, Subject) else neighbour(one.items) for one in layout]

    def _compare_with_alone(self, got: Arrays, alone: Arrays) -> None:
        for output in self._outputs:
            if not self._agree(output, got, alone):
                raise _DiffersError(f"output {output.name!r} of joined requests is not what each gets alone")

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
        for strength, has_loud_whole in STRENGTHS[:-1]:
            make = partial(self._inventor.loud, strength=strength, has_loud_whole=has_loud_whole)
            answers = self._run_if_taken(self._batch(layout, make))
            if answers is not None:
                return answers
        strength, has_loud_whole = STRENGTHS[-1]
        return self._run(
            self._batch(layout, partial(self._inventor.loud, strength=strength, has_loud_whole=has_loud_whole))
        )

    def _run_poisoned(self, layout: Layout) -> Sequence[Arrays] | None:
        """With neighbours that are no numbers; None where the model does not take them, or has no floats."""
        poison = [self._inventor.poisoned(one.items) for one in layout if isinstance(one, Neighbour)]
        if None in poison:
            return None
        made = iter(poison)
        return self._run_if_taken(self._batch(layout, lambda _items: next(made) or {}))

    def _run_if_taken(self, batch: list[Arrays]) -> Sequence[Arrays] | None:
        """None where a request of the batch fails by itself as well; then its neighbours get their answers alone."""
        try:
            return self._run(batch)
        except _RefutedError:
            for request in batch:
                try:
                    self._run_alone(request)
                except _NothingShownError:
                    return None
            raise

    def _run_alone(self, request: Arrays) -> Arrays:
        try:
            return self._run_slot([request])[0]
        except OutOfMemory:
            raise
        except TrtdError as error:
            raise _NothingShownError(f"it refuses what was made up: {error.message}") from error

    def _run(self, batch: list[Arrays]) -> Sequence[Arrays]:
        try:
            return self._run_slot(batch)
        except OutOfMemory:
            raise
        except TrtdError as error:
            raise _RefutedError(f"joined requests fail: {error.message}") from error

    def _agree(self, output: TensorContract, got: Arrays, wanted: Arrays) -> bool:
        one, other = got[output.name], wanted[output.name]
        if not is_close(output.dtype, one, other, TOLERANCE):
            return False
        steady = self._steady[output.name]
        if other.ndim < 2 or other.shape[-1:] != steady.shape or not steady.any():
            return True
        numbers, known = widen(output.dtype, one), widen(output.dtype, other)
        sizes = np.abs(known)
        bound = STEADY_TOLERANCE * sizes[np.isfinite(sizes)].max(initial=0.0) + TOLERANCE * sizes[..., steady]
        return not bool((np.abs(numbers - known)[..., steady] > bound).any())


def _find_steady(dtype: Dtype, rows: Sequence[np.ndarray]) -> np.ndarray:
    """By the last dimension: whether a float is the same in all items, as the number of an only row is."""
    if dtype not in FLOATS or rows[0].ndim == 0 or len({row.shape[-1] for row in rows}) > 1:
        return np.zeros(0, np.bool_)
    numbers = np.concatenate([widen(dtype, row).reshape(-1, row.shape[-1]) for row in rows])
    return (
        np.isfinite(numbers).all(axis=0) & (numbers == numbers[:1]).all(axis=0)
        if len(numbers)
        else np.zeros(0, np.bool_)
    )


def _are_same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()
