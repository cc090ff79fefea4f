"""One request of the asyncio client, from its submission to its outcome."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from trtd.client.exchange import Completion
from trtd.core.ids import RequestId
from trtd.errors import TrtdError


class RequestFuture(asyncio.Future[Any]):
    """How one request ends, for its caller. To cancel it gives the request up.

    Attributes:
        id: of the request.
        abandon: called with the future once it is cancelled. A callback of the future would cost each request a turn in
            the event loop's queue.
    """

    __slots__ = ("abandon", "id")
    id: RequestId
    abandon: Callable[[RequestFuture], None]

    def cancel(self, msg: Any = None) -> bool:
        """Give the request up. False when it has ended already."""
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self.abandon(self)
        return is_cancelled


def settle(completions: Iterable[Completion]) -> None:
    """Give each future its outcome, but those that were cancelled."""
    for future, outcome in completions:
        if future.done():
            continue
        # An event loop that is closed runs no callbacks; the outcome is in the future all the same.
        with contextlib.suppress(RuntimeError):
            if isinstance(outcome, TrtdError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
