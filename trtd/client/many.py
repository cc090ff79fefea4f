"""Many requests of one caller, a window of them on their way at a time, answers in order.

Requests are held back for one another only while that costs no time: a source that is slow to give the next input gets
what it gave sent at once, and nothing is held while nothing is under way.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from trtd.client.handle import Handle
from trtd.client.pending import PendingRequest
from trtd.client.shared import SharedExchange
from trtd.client.values import Answer, TensorLike
from trtd.errors import TrtdError, Usage

DEFAULT_WINDOW = 64
MOST_TOGETHER = 32
"""Most requests that are held back for one another."""
HOLD_S = 0.0002
"""A source that takes longer than this for the inputs since the last message has them sent."""

Prepare = Callable[[Mapping[str, TensorLike], float], PendingRequest]
Place = Handle[Answer] | TrtdError
"""A request under way, or why there is none."""


def is_over(place: Place) -> bool:
    """Whether nothing has to be waited for."""
    return isinstance(place, TrtdError) or place.outcome is not None


def batch_of(window: int) -> int:
    """How many requests are worth to be made together, so that as many stay under way."""
    return max(min(MOST_TOGETHER, window // 2), 1)


def answers_in_order(
    shared: SharedExchange,
    inputs: Iterable[Mapping[str, TensorLike]],
    prepare: Prepare,
    window: int,
    *,
    return_errors: bool,
) -> Iterator[Answer | TrtdError]:
    """Submit a request for each input and yield what became of it; see `trtd.Client.infer_many`."""
    run = _Run(shared, inputs, prepare, window)
    places = run.places
    few = window - batch_of(window)
    try:
        while True:
            if len(places) <= few:
                run.fill()
            if not places:
                break
            place = places[0]
            outcome: Any = place if isinstance(place, TrtdError) else place.outcome
            if outcome is None and isinstance(place, Handle):
                # There is nothing else to do than to send what there is room for.
                run.fill()
                outcome = place.exception() or place.outcome
            places.popleft()
            if not return_errors and isinstance(outcome, TrtdError):
                raise outcome
            yield outcome
        if run.failure is not None:
            raise run.failure
    finally:
        run.give_up()


class _Run:
    """One such iteration.

    Attributes:
        places: in the order of the inputs, from the one that is asked for next.
        failure: what the source of inputs raised; it comes after the answers to what the source gave before.
    """

    def __init__(
        self, shared: SharedExchange, inputs: Iterable[Mapping[str, TensorLike]], prepare: Prepare, window: int
    ) -> None:
        self.failure: Exception | None = None
        self.places: deque[Place] = deque()
        self._shared = shared
        self._source: Iterator[Mapping[str, TensorLike]] | None = iter(inputs)
        self._prepare = prepare
        self._window = window
        self._batch = batch_of(window)

    def give_up(self) -> None:
        """Nobody will ask for the rest."""
        left = [place for place in self.places if isinstance(place, Handle) and place.outcome is None]
        if left:
            self._shared.abandon(*left)

    def fill(self) -> None:
        """Take inputs until the window is full or the source is empty."""
        shared, places, source, prepare = self._shared, self.places, self._source, self._prepare
        if source is None:
            return
        held = 0
        held_since = time.monotonic()
        try:
            shared.check_usable()
            while len(places) < self._window:
                one = next(source)
                now = time.monotonic()
                is_alone = not held and (not places or is_over(places[-1]))
                try:
                    request = prepare(one, now)
                except TrtdError as error:
                    places.append(error)
                    continue
                places.append(request.handle)
                held += 1
                if is_alone or held >= self._batch or now - held_since > HOLD_S:
                    shared.submit(request, is_detached=True)
                    held, held_since = 0, now
                else:
                    shared.hold(request)
        except StopIteration:
            self._source = None
        except Exception as error:
            self.failure = error
            self._source = None
        if held:
            # On a client that was closed meanwhile these end as those under way do.
            with contextlib.suppress(Usage):
                shared.flush(time.monotonic(), is_detached=True)
