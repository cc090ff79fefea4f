"""From a loaded model to slots that may serve: warm, shown to be joinable or not, and right about a known answer.

What an operator gives (`warm_up_inputs`, a probe) has to work, or the model does not serve. What is made up may be
refused by a sound model: the log says so, and nothing follows from it. It may even end the process; so the supervisor
is told before, and a successor, which it tells, leaves it out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from trtd.core.batching import FORCED, OFF, PROVEN, alone
from trtd.errors import OutOfMemory, TrtdError
from trtd.observe import get_logger
from trtd.runtime.protocol import Arrays, Slot
from trtd.wire.messages import ITEM_BYTES
from trtd.wire.settings import Trial
from trtd.worker.joining import Case, TooSlowError, objection
from trtd.worker.material import read_inputs
from trtd.worker.probe import failed, probe, probe_joined, read_known_answer
from trtd.worker.trials import NOBODY, Teller
from trtd.worker.validate import ServedModel

log = get_logger()

MAX_CASE_BYTES = 64 * 1024 * 1024
"""Most bytes of inputs of a batch that is made up; where `max_batch` items are more, fewer are tried."""

MAX_SHOWING_S = 60.0
"""Longest time for showing that requests may be joined: half of what a worker has by default to become ready."""


class Warmer:
    """Opens the slots of one model. The first one finds out what holds for all of them."""

    def __init__(self, served: ServedModel, key: str = "", known: Trial | None = None, teller: Teller = NOBODY) -> None:
        """Read what is configured.

        Args:
            served: the model.
            key: of the trial; empty where it cannot be remembered.
            known: what a former worker has found out.
            teller: tells the supervisor.

        Raises:
            trtd.errors.InvalidConfig: a file cannot be used.
        """
        self._served = served
        self._settings = settings = served.settings
        self._key = key
        self._known = known
        self._teller = teller
        self._question = None if settings.probe is None else read_known_answer(served, settings.probe.path)
        self._given = [read_inputs(served, path) for path in settings.warm_up_inputs]
        self._is_harmful = known is not None and known.is_harmful

    def first_slot(self) -> Slot:
        """Open a slot in the calling thread, and let the model know whether its requests are joined.

        Raises:
            trtd.errors.TrtdError: the model may not serve.
            trtd.core.faults.ProcessFault: likewise, or the process is lost.
        """
        slot = self._served.model.open_slot()
        self._ask(slot)
        is_new = self._settings.is_warmed_up and self._known is None
        if is_new:
            self._teller.begun(str(self._served), self._key)
        self._warm_up(slot)
        batching, is_lasting = self._find_out(slot)
        if is_new:
            self._teller.ended(Trial(self._key if is_lasting else "", batching))
        self._served.settle(batching)
        self._ask_settled(slot)
        self._ask_joined(slot)
        self._tell()
        return slot

    def next_slot(self) -> Slot:
        """Open one more in the calling thread; raises what `first_slot` does."""
        slot = self._served.model.open_slot()
        self._ask(slot)
        if not self._served.model.shares_warmth:
            self._warm_up(slot)
            self._ask_settled(slot)
        return slot

    def _warm_up(self, slot: Slot) -> None:
        if not self._settings.is_warmed_up:
            return
        for inputs, path in zip(self._given, self._settings.warm_up_inputs, strict=True):
            try:
                slot.settle(inputs)
            except TrtdError as error:
                raise type(error)(f"model {self._served}: warm-up {path}: {error.message}") from error
        for inputs in () if self._is_harmful else self._served.model.warm_up_inputs(self._like):
            try:
                slot.settle(inputs)
            except TrtdError as error:
                log.warning("worker.warm_up_refused", model=str(self._served), reason=error.message)

    @property
    def _like(self) -> Arrays | None:
        return next(self._requests(), None)

    def _requests(self) -> Iterator[Arrays]:
        """All that was given."""
        yield from self._given
        if self._question is not None:
            yield self._question.inputs

    # Joining

    def _find_out(self, slot: Slot) -> tuple[str, bool]:
        """Whether requests are joined, in the words of `ModelDescription.batching`, and whether that stays so."""
        described = self._served.model.description
        if self._settings.batching == "off":
            return OFF, True
        if described.batching:
            return described.batching, True
        if self._settings.batching == "always":
            return FORCED, True
        if self._is_harmful:
            return alone("a worker ended while it was run on inputs that were made up"), True
        if self._known is not None:
            return self._known.batching, True
        if not self._settings.is_warmed_up:
            return alone("warm_up is off, so that nothing was shown"), True
        return self._show(slot)

    def _show(self, slot: Slot) -> tuple[str, bool]:
        cases = [case for case in self._cases() if case.most > 1]
        if not cases:
            return alone("it takes one item at a time"), True
        late_at = time.monotonic() + MAX_SHOWING_S
        try:
            for case in cases:
                reason = objection(slot, self._served.model.description, case, lambda: time.monotonic() >= late_at)
                if reason is not None:
                    return alone(reason), True
        except OutOfMemory as error:
            return alone(f"memory did not suffice to show anything: {error.message}"), False
        except TooSlowError:
            # The host may have been busy.
            return alone(f"it takes more than {MAX_SHOWING_S:.0f} s to show anything"), False
        return PROVEN, True

    def _cases(self) -> Iterator[Case]:
        """One for each kind of request that is known: of those that were given, or else of those that are made up."""
        model = self._served.model
        is_given = self._like is not None
        seen = set()
        for one in self._requests() if is_given else model.warm_up_inputs():
            # Inputs with a default are left out: who gives them is never joined.
            request = {contract.name: one[contract.name] for contract in model.description.inputs}
            inner = tuple(array.shape[1:] for array in request.values())
            if inner in seen:
                continue
            seen.add(inner)
            most = model.most_items({name: array.shape for name, array in request.items()})
            item_bytes = sum(
                ITEM_BYTES[one.dtype] * math.prod(request[one.name].shape[1:]) for one in model.description.inputs
            )
            bounds = [self._settings.max_batch, max(1, MAX_CASE_BYTES // max(1, item_bytes))]
            yield Case(request, is_given, min(bounds if most is None else [*bounds, most]))

    def _tell(self) -> None:
        model, batching = str(self._served), self._served.description.batching
        if self._served.model.description.is_batched and not self._served.description.is_batched and batching != OFF:
            log.warning("worker.joins_nothing", model=model, batching=batching)
        else:
            log.info("worker.batching_settled", model=model, batching=batching)

    # The known answer

    def _ask(self, slot: Slot) -> None:
        if self._question is not None and self._settings.probe is not None:
            probe(self._served, slot, self._question, self._settings.probe)

    def _ask_settled(self, slot: Slot) -> None:
        """Once more, when runs go another way than the first one did, as through a captured graph."""
        if self._question is not None and not self._served.model.shares_warmth:
            slot.settle(self._question.inputs)
            self._ask(slot)

    def _ask_joined(self, slot: Slot) -> None:
        """The same in batches; where that is wrong, requests are not joined, unless an operator insists."""
        served = self._served
        if self._question is None or self._settings.probe is None or not served.description.is_batched:
            return
        wrong = probe_joined(served, slot, self._question, self._settings.probe)
        if wrong and served.description.batching == FORCED:
            raise failed(served, wrong)
        if wrong:
            served.settle(alone(f"known answer: {wrong}"))
