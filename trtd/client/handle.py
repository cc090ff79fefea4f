"""One request of the sync client, from its submission to its outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from trtd.client.answers import Outcome
from trtd.client.arguments import wait_of
from trtd.core.ids import RequestId
from trtd.errors import TrtdError, Usage

if TYPE_CHECKING:
    from typing import Self

    from trtd.client.lead import Seat

_log = logging.getLogger("trtd.client")

Callback = Callable[[Any], object]
Result_co = TypeVar("Result_co", covariant=True)


class Waits(Protocol):
    """What a handle needs of its client."""

    def wait_for(self, handle: Handle[Any], timeout_s: float | None) -> bool:
        """Block until the handle is done; False when the time was up first."""
        ...

    def call_when_done(self, handle: Handle[Any], callback: Callback) -> bool:
        """Register a callback; False when the handle is done already."""
        ...


class Handle(Generic[Result_co]):
    """A request that was submitted. Safe to use from several threads."""

    __slots__ = ("_client", "callbacks", "id", "outcome", "seats")

    def __init__(self, client: Waits, request_id: RequestId) -> None:
        self._client = client
        self.id = request_id
        self.outcome: Outcome | None = None
        # Most handles never have any.
        self.callbacks: tuple[Callback, ...] = ()
        self.seats: tuple[Seat, ...] = ()

    def done(self) -> bool:
        """Whether the request has ended, well or not."""
        return self.outcome is not None

    def result(self, timeout: float | None = None) -> Result_co:
        """Wait for the answer.

        Args:
            timeout: seconds to wait here; None waits until the request ends, which its own timeout bounds.

        Raises:
            TimeoutError: the time was up; the request goes on.
            trtd.errors.TrtdError: the request failed, as its type says; `Usage` when the timeout is no number.
        """
        if self.outcome is None and not self._client.wait_for(self, wait_of(timeout)):
            raise TimeoutError(f"no answer within {timeout} s of waiting; the request goes on")
        if isinstance(self.outcome, TrtdError):
            raise self.outcome
        return cast("Result_co", self.outcome)

    def exception(self, timeout: float | None = None) -> TrtdError | None:
        """Wait for the end of the request and return its error, None when it has an answer.

        Raises:
            TimeoutError: as `result` does.
        """
        if self.outcome is None and not self._client.wait_for(self, wait_of(timeout)):
            raise TimeoutError(f"no answer within {timeout} s of waiting; the request goes on")
        return self.outcome if isinstance(self.outcome, TrtdError) else None

    def add_done_callback(self, callback: Callable[[Self], object]) -> None:
        """Call `callback(handle)` once the request has ended, at once when it has already.

        It runs in a thread of the client's choice, which must not be kept long: other answers wait for it.

        Raises:
            trtd.errors.Usage: the callback cannot be called.
        """
        if not callable(callback):
            raise Usage(f"a callback has to be callable, which a {type(callback).__name__} is not")
        if not self._client.call_when_done(self, callback):
            run_callbacks([(callback, self)])


def run_callbacks(callbacks: list[tuple[Callback, Handle[Any]]]) -> None:
    """Call each with its handle. What one raises is logged, as `concurrent.futures` does, and the others go on."""
    for callback, handle in callbacks:
        try:
            callback(handle)
        except Exception:
            _log.exception("a callback of a request failed")
